#!/usr/bin/env bash
# Runs rest.main on a list of hosts over ssh, one process on each.
#
#   launch/ssh.sh --hosts=gpu1,gpu2 --dir=/home/me/rest [FLAGS] \
#       -- --config=configs/math.py --workdir=gs://bucket/run1
#
# The hosts need this checkout at the same path, keys instead of passwords, and
# a way to reach the first of them. Every line of output is headed by the number
# of its process. All are started again when all that failed were preempted
# (exit status 75); any other failure is the end.
#   --hosts=A,B,...        What ssh takes: names, addresses, user@name.
#   --dir=PATH             The checkout there, absolute or from the home folder.
#   --coordinator=ADDRESS  Where all reach the first host. Default: its name.
#   --port=N               Free port on the first host. Default 8476.
#   --tries=N              Start at most N times. Default 0: no limit.
#   --pause=SECONDS        Wait so long before the next start. Default 30.
#   --python=PATH          The interpreter there. Default python.
#   --dry_run              Print what would be run, and touch nothing.

set -euo pipefail
# shellcheck source=launch/shared.sh
. "$(dirname "$0")/shared.sh"

hosts='' dir='' coordinator='' port=8476 dry_run=false
while [ $# -gt 0 ]; do
  case $1 in
    --help) usage && exit 0 ;;
    --dry_run) dry_run=true ;;
    --hosts=*) hosts=${1#*=} ;;
    --dir=*) dir=${1#*=} ;;
    --coordinator=*) coordinator=${1#*=} ;;
    --port=*) port=${1#*=} ;;
    --tries=*) tries=${1#*=} ;;
    --pause=*) pause=${1#*=} ;;
    --python=*) python=${1#*=} ;;
    --) shift && break ;;
    *) refuse "unknown argument '$1'; flags of rest.main go after --." ;;
  esac
  shift
done

need --hosts "$hosts" 'the hosts, separated by commas'
need --dir "$dir" 'the checkout of rest on the hosts'
need_number --port "$port" 1
[ "$port" -le 65535 ] || refuse "--port must be at most 65535, got '$port'."
case $dir in
  '~'*) refuse "--dir starts at the home folder: leave out ~/ in '$dir'." ;;
esac
host='[A-Za-z0-9_.][A-Za-z0-9_.-]*'
[[ $hosts =~ ^($host@)?$host(,($host@)?$host)*$ ]] ||
  refuse "--hosts must be names separated by commas, got '$hosts'."
IFS=, read -r -a hosts <<< "$hosts"
coordinator=${coordinator:-${hosts[0]#*@}}
[[ $coordinator =~ ^($host|\[[0-9a-fA-F:]+\])$ ]] ||
  refuse "--coordinator must be a name or an address, got '$coordinator'."
check_common "$@"
need_workdir "$@"

# Without a terminal, and without questions: there is nobody to answer.
ssh=(ssh -T -o BatchMode=yes -o ServerAliveInterval=30)

# Prints the command of process $1, for the shell on its host.
remote() {
  local id=$1
  shift
  printf 'cd %s && exec ' "$(quote "$dir")"
  quote launch/leash.sh env "REST_COORDINATOR=$coordinator:$port" \
    "REST_NUM_PROCESSES=${#hosts[@]}" "REST_PROCESS_ID=$id" \
    "$python" -m rest.main "$@"
}

# Copies standard input, each line headed by $1.
label() {
  while IFS= read -r line || [ -n "$line" ]; do
    printf '[%s] %s\n' "$1" "$line"
  done
}

# Runs all processes. Returns 75 if all that failed were preempted.
run_on_hosts() {
  local id status worst=0 children=()
  for id in "${!hosts[@]}"; do
    ("${ssh[@]}" "${hosts[id]}" "$(remote "$id" "$@")" 2>&1 | label "$id") \
      <&0 &
    children+=("$!")
  done
  for id in "${!hosts[@]}"; do
    status=0
    wait "${children[id]}" || status=$?
    if [ "$status" -ne 0 ]; then
      note "process $id on ${hosts[id]} ended with status $status."
      case $worst in
        0 | 75) worst=$status ;;
      esac
    fi
  done
  return "$worst"
}

if $dry_run; then
  describe_again
  for id in "${!hosts[@]}"; do
    quote "${ssh[@]}" "${hosts[id]}" "$(remote "$id" "$@")"
  done
  exit
fi
again run_on_hosts "$@"
