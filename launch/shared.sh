#!/usr/bin/env bash
# What the launchers share. Sourced, never run. Their common flags:
#   --tries=N        Start at most N times. Default 0: no limit.
#   --python=PATH    The interpreter there that has rest. Default python.
#   --dry_run        Print what would be run, and touch nothing.

tries=0 pause=30 python=python dry_run=false
passed=()  # Flags for another program.
places=()  # Of the processes, where their output is to be told apart.
# shellcheck disable=SC2034  # For `want` in the launchers.
positive='[1-9][0-9]{0,8}'

# Prints the comment at the top of the script, and the common flags.
usage() {
  sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
  sed -n 's/^#   /  /p' "${BASH_SOURCE[0]}"
}

# Ends the script for a mistake in its arguments, as rest.main does.
refuse() {
  printf 'error: %s\n%s --help says more.\n' "$*" "$0" >&2
  exit 2
}

# Reads the flags that --help names into variables of the same names, those that
# may repeat into `passed`, and what follows -- into the command `main`.
read_flags() {
  local help word
  help=$(usage)
  while [ $# -gt 0 ]; do
    word=${1#--}
    case $1 in
      --help) echo "$help" && exit ;;
      --dry_run) dry_run=true ;;
      --) shift && break ;;
      *)
        [[ $1 == --*=* && $help == *$'\n'"  ${1%%=*}="* ]] ||
          refuse "unknown argument '$1'; flags of rest.main go after --."
        case $1 in
          --gcloud=* | --sbatch=*) passed+=("${1#*=}") ;;
          *) printf -v "${word%%=*}" %s "${1#*=}" ;;
        esac
        ;;
    esac
    shift
  done
  main=("$python" -m rest.main "$@")
  want tries '0|[1-9][0-9]{0,8}' 'a number of starts, or 0'
  want pause '0|[1-9][0-9]{0,8}' 'a number of seconds'
  want python '.+' 'the interpreter that has rest installed'
  want_argument config
}

# Refuses flag $1 unless all of its value is of pattern $2; $3 says what it is.
want() {
  [ -n "${!1}" ] || refuse "--$1 is missing: $3."
  [[ ${!1} =~ ^($2)$ ]] || refuse "--$1 must be $3, got '${!1}'."
}

# Refuses a command of rest.main without --$1.
want_argument() {
  [[ ${main[*]} =~ " --$1"[=\ ][^\ ] ]] || refuse "--$1 is missing after --."
}

# Prints words such that any POSIX shell reads them back as they are.
quote() {
  local LC_ALL=C word line=''
  for word in "$@"; do
    [[ $word =~ ^[a-zA-Z0-9_@%+=:,./-]+$ ]] || word="'${word//\'/"'\\''"}'"
    line+="${line:+ }$word"
  done
  printf '%s\n' "$line"
}

# Waits for process $1, however many signals come, and returns its status.
wait_for() {
  local status
  interrupted=true
  while $interrupted; do
    interrupted=false
    status=0
    wait "$1" || status=$?
  done
  return "$status"
}

# Copies standard input, each line headed by $1.
label() {
  while IFS= read -r line || [ -n "$line" ]; do
    printf '[%s] %s\n' "$1" "$line"
  done
}

# Runs lines of shell side by side, and all again while all that failed returned
# 75, which is how rest.main says 'run the same command again'. Or prints them.
#
# Their standard input is a pipe that nobody writes to and that ends when this
# script is told to stop, or dies. That, unlike a signal, also crosses ssh; at
# the other end, leash.sh turns it into a SIGTERM for rest.main.
launch() {
  local scratch line id status worst children try=0 stopping=false
  if $dry_run; then
    echo "# Started again after exit status 75, in $pause s; --tries=$tries."
    printf '%s\n' "$@"
    exit
  fi
  scratch=$(mktemp -d)
  mkfifo "$scratch/input"
  # shellcheck disable=SC2094  # Both ends of one pipe.
  exec 3<> "$scratch/input" 4< "$scratch/input"
  rm -r "$scratch"
  trap 'interrupted=true; stopping=true; exec 3>&-' TERM INT HUP
  while true; do
    try=$((try + 1)) worst=0 children=()
    for line in "$@"; do
      if [ ${#places[@]} -gt 0 ]; then
        bash -c "$line" 2>&1 | label "${#children[@]}"
      else
        bash -c "$line"
      fi <&4 3>&- 4<&- &
      children+=("$!")
    done
    for id in "${!children[@]}"; do
      wait_for "${children[id]}" && continue
      status=$?
      echo "process $id on ${places[id]:-this host} ended with $status." >&2
      [[ $worst != 0 && $worst != 75 ]] || worst=$status
    done
    [[ $worst = 75 && $try != "$tries" ]] && ! $stopping || exit "$worst"
    echo "starting again in $pause s (start $((try + 1)))." >&2
    sleep "$pause" > /dev/null 2>&1 3>&- 4<&- &
    wait "$!" || true  # A signal ends the pause.
    ! $stopping || exit 75
  done
}
