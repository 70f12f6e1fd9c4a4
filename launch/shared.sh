#!/usr/bin/env bash
# What the launchers share: reading flags, quoting, and starting again what
# exited with 75, which is how rest.main says 'run the same command again'.
# Sourced, never run.

tries=0     # At most so many starts; 0 is no limit.
pause=30    # Seconds before the next start.
python=python

interrupted=false  # Set by traps: a signal ended a wait, not the process.
stopping=false     # Set by traps: whoever started this wants it to end.

# Prints the comment at the top of the script.
usage() {
  sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
}

# Ends the script for a mistake in its arguments, as rest.main does.
refuse() {
  printf 'error: %s\n%s --help says more.\n' "$*" "$0" >&2
  exit 2
}

note() {
  printf '%s: %s\n' "${0##*/}" "$1" >&2
}

# Refuses flag $1 if its value $2 is empty; $3 says what it is.
need() {
  [ -n "$2" ] || refuse "$1 is missing: $3."
}

# Refuses flag $1 if its value $2 is not a whole number of at least $3.
need_number() {
  [[ $2 =~ ^(0|[1-9][0-9]{0,8})$ ]] && [ "$2" -ge "$3" ] ||
    refuse "$1 must be a whole number of at least $3, got '$2'."
}

# Checks the flags that all launchers have, and the arguments of rest.main.
check_common() {
  need_number --tries "$tries" 0
  need_number --pause "$pause" 0
  need --python "$python" 'the interpreter that has rest installed'
  need_argument config 'the file that says what to run' "$@"
}

# Refuses arguments of rest.main ($3 and on) without --$1; $2 says what it is.
need_argument() {
  local name=$1 meaning=$2 argument
  shift 2
  for argument in "$@"; do
    case $argument in
      "--$name" | "--$name="?*) return ;;
    esac
  done
  refuse "--$name is missing after --: $meaning."
}

# Processes that share a run must share its files.
need_workdir() {
  need_argument workdir 'a folder that every process sees, or gs://...' "$@"
}

# Prints words such that any POSIX shell reads them back as they are.
quote() {
  local LC_ALL=C word line=''
  for word in "$@"; do
    if [[ -z $word || $word == *[!a-zA-Z0-9_@%+=:,./-]* ]]; then
      word="'${word//\'/"'\\''"}'"
    fi
    line+="${line:+ }$word"
  done
  printf '%s\n' "$line"
}

# Prints, as a comment, what `again` adds to the commands of a dry run.
describe_again() {
  local limit='without limit'
  [ "$tries" -eq 0 ] || limit="$tries starts at most"
  printf '# Started again %s s after exit status 75, %s.\n' "$pause" "$limit"
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

# Runs a command, and runs it again while it returns 75.
#
# Its standard input is a pipe that nobody writes to and that ends when this
# script is told to stop, or dies. That, unlike a signal, also crosses ssh; at
# the other end, leash.sh turns it into a SIGTERM for rest.main.
again() {
  local scratch status try=0
  scratch=$(mktemp -d)
  mkfifo "$scratch/input"
  # shellcheck disable=SC2094  # Both ends of one pipe.
  exec 3<> "$scratch/input" 4< "$scratch/input"
  rm -r "$scratch"
  trap 'interrupted=true; stopping=true; exec 3>&-' TERM INT HUP
  while true; do
    try=$((try + 1))
    status=0
    "$@" <&4 3>&- 4<&- &
    wait_for "$!" || status=$?
    if [ "$status" -ne 75 ] || $stopping; then
      return "$status"
    fi
    if [ "$try" -eq "$tries" ]; then
      note "asked to stop for the ${try}th time: giving up."
      return "$status"
    fi
    note "asked to stop; starting again in $pause s (start $((try + 1)))."
    sleep "$pause" > /dev/null 2>&1 3>&- 4<&- &
    wait "$!" || true  # A signal ends the pause.
    if $stopping; then
      return "$status"
    fi
  done
}
