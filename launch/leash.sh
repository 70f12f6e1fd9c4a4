#!/usr/bin/env bash
# Runs a command, and sends it SIGTERM when standard input ends.
#
#   launch/leash.sh COMMAND [ARGUMENT...]
#
# The launchers put it before rest.main. When the launcher is stopped or killed,
# or its connection is lost, no process stays behind on another machine with the
# accelerator in its hands: it saves, and exits with 75.

set -euo pipefail
# shellcheck source=launch/shared.sh
. "$(dirname "$0")/shared.sh"

"$@" < /dev/null &
run=$!
trap 'interrupted=true; kill -TERM "$run" 2> /dev/null || true' TERM INT HUP
{
  while read -r _; do :; done
  kill -TERM "$run"
} <&0 > /dev/null 2>&1 &
watch=$!

status=0
wait_for "$run" || status=$?
kill "$watch" 2> /dev/null || true
exit "$status"
