#!/usr/bin/env bash
# usage: [PYTHON=python3.12] ./launch/batch_curve.sh FOLDER [--batches 16,64,256] [--seeds 3] [--judge RUN] [--dry-run]
#                            [--config NAME] [--images N] [--config.KEY=VALUE ...]
#
# Measures what a larger batch costs in quality: trains a judge and the quickstart's AttGAN on drawn faces at each batch
# size, by three rules for the learning rate, with equal numbers of images seen, and judges them. FOLDER/batch_curve.json,
# a table and charts come of it. Stopped and started again, it goes on where it was.
#
#   --dry-run  print what each run changes, train nothing
#
# Costs about as much as 21 quickstarts: 7 trainings by 3 seeds, some 10 minutes each on two idle CPU cores.
set -euo pipefail
# shellcheck source=launch/_environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

[[ ${1:-} == --help || ${1:-} == -h ]] && help && exit
[[ $# -ge 1 ]] || { help >&2 && exit 2; }
environment evaluation
exec "$VENV/bin/python" -m faceattr_jax.batch_curve "$@"
