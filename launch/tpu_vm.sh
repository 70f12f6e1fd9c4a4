#!/usr/bin/env bash
# Runs rest.main on a TPU VM, or on all hosts of a TPU pod, from anywhere.
#
#   launch/tpu_vm.sh --name=my-tpu --zone=us-central2-b --dir=rest [FLAGS] \
#       -- --config=configs/math.py --workdir=gs://bucket/run1
#
# Every host needs this checkout at the same path. The processes find each other
# through the metadata of the TPU. Started again when preempted (exit status
# 75); any other end is the end. It must stay connected: run it in tmux, on a
# machine that stays on. On a single TPU VM, here.sh does the same from within.
#   --name=NAME      The TPU.
#   --zone=ZONE      Where it is.
#   --dir=PATH       The checkout there, absolute or from the home folder.
#   --gcloud=FLAG    Passed to gcloud, such as --gcloud=--internal-ip; repeat.
#   --tries=N        Start at most N times. Default 0: no limit.
#   --pause=SECONDS  Wait so long before the next start. Default 30.
#   --python=PATH    The interpreter there. Default python3.
#   --dry_run        Print what would be run, and touch nothing.

set -euo pipefail
# shellcheck source=launch/shared.sh
. "$(dirname "$0")/shared.sh"

name='' zone='' dir='' gcloud=() python=python3 dry_run=false
while [ $# -gt 0 ]; do
  case $1 in
    --help) usage && exit 0 ;;
    --dry_run) dry_run=true ;;
    --name=*) name=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --dir=*) dir=${1#*=} ;;
    --gcloud=*) gcloud+=("${1#*=}") ;;
    --tries=*) tries=${1#*=} ;;
    --pause=*) pause=${1#*=} ;;
    --python=*) python=${1#*=} ;;
    --) shift && break ;;
    *) refuse "unknown argument '$1'; flags of rest.main go after --." ;;
  esac
  shift
done

need --name "$name" 'the name of the TPU'
need --zone "$zone" 'the zone of the TPU, such as us-central2-b'
need --dir "$dir" 'the checkout of rest on its hosts'
[[ $name =~ ^([a-z0-9_]+@)?[a-z]([a-z0-9-]*[a-z0-9])?$ ]] ||
  refuse "--name must be the name of a TPU, got '$name'."
[[ $zone =~ ^[a-z]+-[a-z]+[0-9]+-[a-z]$ ]] ||
  refuse "--zone must look like us-central2-b, got '$zone'."
case $dir in
  '~'*) refuse "--dir starts at the home folder: leave out ~/ in '$dir'." ;;
esac
check_common "$@"
need_workdir "$@"

remote="cd $(quote "$dir") && exec $(quote launch/leash.sh \
  env REST_DISTRIBUTED=auto "$python" -m rest.main "$@")"
# Quiet, because there is nobody to answer questions.
command=(gcloud compute tpus tpu-vm ssh "$name" "--zone=$zone" --worker=all
  --quiet "${gcloud[@]}" "--command=$remote")
if $dry_run; then
  describe_again
  quote "${command[@]}"
  exit
fi
again "${command[@]}"
