#!/usr/bin/env bash
# A paper's table on full CelebA, at the paper's size: trains, judges, evaluates.
set -euo pipefail

if [[ $# -lt 1 || $1 == --help || $1 == -h ]]; then
  cat <<'HELP'
usage: CELEBA=FOLDER [OUT=FOLDER] [PYTHON=python3.12] ./launch/reproduce.sh PAPER [--dry-run]

PAPER is attgan, attribute_inverse, diat, elegant or slgan. Measures what every training costs on this machine, prints
the plan (steps, images, hours), and then trains the judges and the models and evaluates them by the paper's protocol:
OUT/evaluation.html has the paper's table with ours beside it. AttGAN's augmentation study comes last, and takes some
112 GB for its edits. Stopped at any moment and started again, it goes on where
it was. It needs a GPU: days of one, for most papers; JAX's CUDA build is installed where `nvidia-smi` shows one.

  --dry-run  only print the plan; hours not measured before are estimated
  CELEBA     a folder in CelebA's layout, or what `faceattr data prepare` made of it
  OUT        for the runs and the report (runs/PAPER)
  CUDA       the CUDA build of JAX: cuda12 (the default) or cuda13
  PYTHON     a Python 3.11 or 3.12 by name or path
HELP
  [[ $# -ge 1 ]] && exit
  exit 2
fi
if [[ $# -gt 2 || ( $# -eq 2 && $2 != --dry-run ) ]]; then
  echo "reproduce.sh takes PAPER and --dry-run; see ./launch/reproduce.sh --help" >&2
  exit 2
fi
if [[ -z ${CELEBA:-} && $# -eq 1 ]]; then
  echo "reproduce.sh: say where CelebA is: CELEBA=FOLDER ./launch/reproduce.sh $1" >&2
  exit 2
fi

# shellcheck source=launch/_environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"
environment evaluation,faces
if [[ $# -eq 1 ]] && nvidia-smi >/dev/null 2>&1; then
  cuda_build
fi
paper="$1"
shift
exec "$VENV/bin/python" -m faceattr_jax.reproduce "$paper" "${CELEBA:-CELEBA}" "${OUT:-$ROOT/runs/$paper}" "$@"
