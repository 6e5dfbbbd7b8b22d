#!/usr/bin/env bash
# usage: ./launch/slurm.sh [--dry-run] [--nodes N] [--gpus G] [--time T] [--partition P] [--account A]
#                          CONFIG WORKDIR [--config.KEY=VALUE ...]
#
# Submits the training of CONFIG on N nodes of G GPUs each (1 and 1) to SLURM, one task for each GPU. The clone, its
# .venv, WORKDIR and the data must lie on a disk that all nodes see; batch_size is a multiple of N x G. Three minutes
# before its time is up, or when it is preempted, the job saves, and puts itself back into the queue (`faceattr train`
# exits with 75 then; after any other failure it ends); submitted again by the same command, too, it goes on where it was.
#
#   --dry-run    check the config and print the command, submit nothing
#   --time       of one job, as SLURM writes it (24:00:00)
#   --partition, --account   as of sbatch, where the cluster wants them
#
# Costs N x G GPU hours for each hour. Make .venv beforehand on a node with internet: ./launch/local_gpu.sh does.
# When it hangs: `squeue --me` shows whether it has begun; WORKDIR-logs/slurm-JOB.log holds what it says. A task that finds
# the others missing ends after 5 minutes and says which address it waited at (is its port open between the nodes?);
# NCCL_DEBUG=INFO, exported before, tells what the GPUs wait for.
set -euo pipefail
# shellcheck source=launch/_environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

nodes=1 gpus=1 time=24:00:00 more=()
flag() {
  case "$1" in
    --nodes) nodes="${2:?}" ;;
    --gpus) gpus="${2:?}" ;;
    --time) time="${2:?}" ;;
    --partition | --account) more+=("$1=${2:?}") ;;
    *) return 1 ;;
  esac
}
flags "$@" && set -- "${REST[@]}"
[[ $# -ge 2 ]] || { help >&2 && exit 2; }
config="$1" workdir="$2"
shift 2

check_config "$config" "$@"
printf -v command '%q ' "$ROOT/.venv/bin/faceattr" train --config="$config" --workdir="$workdir" "$@"
# Every task sees all GPUs of its node and takes the one of its own number, as JAX has it. SIGTERM goes to the tasks,
# which save; the others of a step are not killed before they have, also where a cluster would when the first one fails.
run mkdir -p "$workdir-logs"
run sbatch --job-name="faceattr-$config" --nodes="$nodes" --ntasks-per-node="$gpus" --gpus-per-node="$gpus" \
  --time="$time" --signal=TERM@180 --requeue --open-mode=append --output="$workdir-logs/slurm-%j.log" "${more[@]}" \
  --wrap="srun --gpu-bind=none --kill-on-bad-exit=0 $command
status=\$?
[ \$status -ne 75 ] || scontrol requeue \$SLURM_JOB_ID
exit \$status"
