#!/usr/bin/env bash
# Submits rest.main to Slurm: one process a GPU, or one a node without GPUs.
#
#   launch/slurm.sh --nodes=2 --gpus_per_node=8 --sbatch=--time=24:00:00 \
#       [FLAGS] -- --config=configs/math.py --workdir=/shared/run1
#
# Run it on a login node, in a checkout that the nodes see. The job asks for
# SIGTERM before its time is up, and is put back into the queue when rest.main
# was preempted (exit status 75); any other end is the end.
#   --nodes=N             Nodes.
#   --gpus_per_node=N     GPUs on each; 0 for none.
#   --cpus_per_process=N  Cores for each process and its verifiers. Default 8.
#   --sbatch=FLAG         Passed to sbatch, such as --sbatch=--partition=gpu;
#                         repeat.

set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=launch/shared.sh
. "$here/shared.sh"

nodes='' gpus_per_node='' cpus_per_process=8
read_flags "$@"
want nodes "$positive" 'how many nodes to ask for'
want gpus_per_node "0|$positive" 'how many GPUs each node has, or 0'
want cpus_per_process "$positive" 'a number of cores'
want_argument workdir

# Under Slurm, JAX gives each process the GPU with its own number on the node.
# So every process must see all of them: not --gpus-per-task, which hides them.
processes=(--ntasks-per-node=1)
if [ "$gpus_per_node" -gt 0 ]; then
  processes=("--ntasks-per-node=$gpus_per_node"
    "--gpus-per-node=$gpus_per_node")
fi
# The checkout's path: Slurm runs a copy of the script, from another folder.
command=(sbatch "--chdir=${here%/*}" "--nodes=$nodes" "${processes[@]}"
  "--cpus-per-task=$cpus_per_process" "${passed[@]}"
  "$here/slurm_job.sh" "$tries" "$python" "${main[@]:3}")
if $dry_run; then
  quote "${command[@]}"
else
  exec "${command[@]}"
fi
