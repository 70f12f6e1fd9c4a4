#!/usr/bin/env bash
# Runs rest.main on this machine, alone: a TPU VM, a GPU host, a laptop.
#
#   launch/here.sh [FLAGS] -- --config=configs/math.py [FLAGS OF rest.main]
#
# Started again when preempted (exit status 75); any other end is the end.
#   --tries=N        Start at most N times. Default 0: no limit.
#   --pause=SECONDS  Wait so long before the next start. Default 30.
#   --python=PATH    The interpreter that has rest installed. Default python.
#   --dry_run        Print what would be run, and touch nothing.

set -euo pipefail
here=$(dirname "$0")
# shellcheck source=launch/shared.sh
. "$here/shared.sh"

dry_run=false
while [ $# -gt 0 ]; do
  case $1 in
    --help) usage && exit 0 ;;
    --dry_run) dry_run=true ;;
    --tries=*) tries=${1#*=} ;;
    --pause=*) pause=${1#*=} ;;
    --python=*) python=${1#*=} ;;
    --) shift && break ;;
    *) refuse "unknown argument '$1'; flags of rest.main go after --." ;;
  esac
  shift
done
check_common "$@"

command=("$here/leash.sh" "$python" -m rest.main "$@")
if $dry_run; then
  describe_again
  quote "${command[@]}"
  exit
fi
again "${command[@]}"
