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
#   --pause=SECONDS  Wait so long before the next start. Default 30.

set -euo pipefail
# shellcheck source=launch/shared.sh
. "$(dirname "$0")/shared.sh"

name='' zone='' dir='' python=python3
read_flags "$@"
want name '([a-z0-9_]+@)?[a-z]([a-z0-9-]*[a-z0-9])?' 'the name of a TPU'
want zone '[a-z]+-[a-z]+[0-9]+-[a-z]' 'a zone such as us-central2-b'
want dir '[^~].*' 'the checkout of rest on the hosts, without ~/'
want_argument workdir

remote="cd $(quote "$dir") && exec $(quote launch/leash.sh \
  env REST_DISTRIBUTED=auto "${main[@]}")"
# Quiet, because there is nobody to answer questions.
launch "$(quote gcloud compute tpus tpu-vm ssh "$name" "--zone=$zone" \
  --worker=all --quiet "${passed[@]}" "--command=$remote")"
