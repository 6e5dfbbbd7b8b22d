#!/usr/bin/env bash
# usage: ./launch/local_gpu.sh [--dry-run] [--gpus 0,1] CONFIG WORKDIR [--config.KEY=VALUE ...]
#
# Trains CONFIG (NAME[:VARIANT]) on the GPUs of this machine, all of them or those named, in one process: the batch is
# split over them, so batch_size is a multiple of their number. Makes .venv in the clone and installs JAX's CUDA build
# into it (about 4 GB). Stopped or killed at any moment and started again, it goes on where it was.
#
#   --dry-run  check the config and print the commands, run none
#   --gpus     the cards to use, by number
#   PYTHON     a Python 3.11 or 3.12 by name or path
#   CUDA       the CUDA build of JAX: cuda12 (the default) or cuda13
#
# Costs nothing but the machine's time: the config's docstring says how much of it, `faceattr benchmark --config=CONFIG`
# measures it. When it hangs: the first step compiles for a minute or so; `nvidia-smi` shows whether the cards are busy
# or held by someone else; with several cards NCCL_DEBUG=INFO tells which one the others wait for.
set -euo pipefail
# shellcheck source=launch/_environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

cards=
flag() {
  [[ $1 == --gpus ]] && cards="${2:?--gpus takes numbers, such as 0,1}"
}
flags "$@" && set -- "${REST[@]}"
[[ $# -ge 2 ]] || { help >&2 && exit 2; }
config="$1" workdir="$2"
shift 2

if [[ -z $DRY_RUN ]]; then
  nvidia-smi --query-gpu=index,name,memory.total --format=csv || { echo "no NVIDIA GPU, or no driver" >&2 && exit 2; }
  environment ""
  cuda_build
fi
check_config "$config" "$@"
run env ${cards:+"CUDA_VISIBLE_DEVICES=$cards"} "${VENV:-$ROOT/.venv}/bin/faceattr" train --config="$config" \
  --workdir="$workdir" "$@"
