#!/usr/bin/env bash
# From a fresh clone to a trained, judged editor of drawn faces: no GPU, no data set, no account.
set -euo pipefail

if [[ ${1:-} == --help || ${1:-} == -h ]]; then
  cat <<'HELP'
usage: [PYTHON=python3.12] [SEED=1] ./launch/quickstart.sh

Makes .venv in the clone (about 1 GB), trains a judge and a small AttGAN on synthetic faces, and lets the judge,
which is not the GAN's own head, evaluate the edits on faces that neither has seen. About 10 minutes on 2 fast
CPU cores. Stopped at any moment and started again, it goes on where it was.

  SEED    another seed for both trainings; the results go to runs/quickstart-SEED
  PYTHON  a Python 3.11 or 3.12 by name or path
HELP
  exit
fi
if [[ $# -gt 0 ]]; then
  echo "quickstart.sh takes no arguments; see ./launch/quickstart.sh --help" >&2
  exit 2
fi

# shellcheck source=launch/_environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"
environment ""
cd "$ROOT"
faceattr="$VENV/bin/faceattr"
run="runs/quickstart${SEED:+-$SEED}"
seed=(${SEED:+"--config.seed=$SEED"})

# The judge trains beside the editor, which alone leaves a third of two cores idle. Whatever ends this script first stops
# both, which save.
mkdir -p "$run"
"$faceattr" train --config=classifier_synthetic --workdir="$run/judge" "${seed[@]}" >"$run/judge.log" 2>&1 &
judge=$!
"$faceattr" train --config=attgan_quickstart --workdir="$run/attgan" "${seed[@]}" &
editor=$!
trap 'kill "$judge" "$editor" 2>/dev/null || true; wait' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
wait -n || true
kill -0 "$editor" 2>/dev/null || wait "$editor"
wait "$judge" || { cat "$run/judge.log" >&2; exit 1; }
wait "$editor"
trap - EXIT INT TERM
"$faceattr" evaluate --workdir="$run/attgan" --judge="$run/judge" --out="$run"

echo
echo "After ${SECONDS} seconds:"
echo "  the numbers   $run/evaluation.json"
echo "  the pictures  $run/grid.png"
