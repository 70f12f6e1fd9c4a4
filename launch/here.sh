#!/usr/bin/env bash
# Runs rest.main on this machine, alone: a TPU VM, a GPU host, a laptop.
#
#   launch/here.sh [FLAGS] -- --config=configs/math.py [FLAGS OF rest.main]
#
# Started again when preempted (exit status 75); any other end is the end.
#   --pause=SECONDS  Wait so long before the next start. Default 30.

set -euo pipefail
here=$(dirname "$0")
# shellcheck source=launch/shared.sh
. "$here/shared.sh"
read_flags "$@"
launch "$(quote "$here/leash.sh" "${main[@]}")"
