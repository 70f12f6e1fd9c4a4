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
#   --pause=SECONDS        Wait so long before the next start. Default 30.

set -euo pipefail
# shellcheck source=launch/shared.sh
. "$(dirname "$0")/shared.sh"

hosts='' dir='' coordinator='' port=8476
read_flags "$@"
host='[A-Za-z0-9_.][A-Za-z0-9_.-]*'
want hosts "($host@)?$host(,($host@)?$host)*" 'the hosts, separated by commas'
want dir '[^~].*' 'the checkout of rest on the hosts, without ~/'
want port "$positive" 'a port'
[ "$port" -le 65535 ] || refuse "--port must be at most 65535, got '$port'."
want_argument workdir
IFS=, read -r -a places <<< "$hosts"
coordinator=${coordinator:-${places[0]#*@}}
want coordinator "$host|\[[0-9a-fA-F:]+\]" 'a name or an address'

lines=()
for id in "${!places[@]}"; do
  remote="cd $(quote "$dir") && exec $(quote launch/leash.sh env \
    "REST_COORDINATOR=$coordinator:$port" "REST_NUM_PROCESSES=${#places[@]}" \
    "REST_PROCESS_ID=$id" "${main[@]}")"
  # Without a terminal, and without questions: there is nobody to answer.
  lines+=("$(quote ssh -T -o BatchMode=yes -o ServerAliveInterval=30 \
    "${places[id]}" "$remote")")
done
launch "${lines[@]}"
