#!/usr/bin/env bash
#SBATCH --job-name=rest
#SBATCH --output=%x-%j.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=TERM@300
# The job that slurm.sh submits.
#
#   sbatch [FLAGS] launch/slurm_job.sh TRIES PYTHON [FLAGS OF rest.main]
#
# SIGTERM reaches the processes five minutes before the time is up. They save
# and exit with 75, and the job goes back into the queue, keeping its number and
# its output file, at most TRIES times in all (0: no limit).

set -euo pipefail
tries=$1 python=$2
shift 2

export REST_DISTRIBUTED=auto
# Else srun gives a process one core, whatever the job was given.
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK

# A process that is done saving must not cut off the others: JAX itself stops
# them when one is lost. srun returns the highest status of all.
status=0
srun --kill-on-bad-exit=0 --gpu-bind=none \
  "$python" -m rest.main "$@" || status=$?

starts=$((${SLURM_RESTART_COUNT:-0} + 1))
if [ "$status" -eq 75 ] && [ "$starts" -ne "$tries" ]; then
  exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
