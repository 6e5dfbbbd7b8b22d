#!/usr/bin/env bash
# Format, lint, types and tests, in the clone's own environment.
set -euo pipefail

if [[ ${1:-} == --help || ${1:-} == -h ]]; then
  cat <<'HELP'
usage: [PYTHON=python3.12] [FACEATTR_TORCH=1] ./launch/test.sh [pytest arguments]

Makes .venv in the clone, or takes the one that is there, and runs in it: ruff format --check, ruff check, mypy,
shellcheck, pytest in two processes. Arguments go to pytest: `./launch/test.sh -k conv`, and, to see what slow tests print,
`./launch/test.sh -n 0 -s -m slow`.

  PYTHON           a Python 3.11 or 3.12 by name or path; a second version gets an environment of its own (.venv-3.12)
  FACEATTR_DOCS    a Python that has the extra `docs`, to build the documentation with
  FACEATTR_TORCH   1 installs PyTorch, torchmetrics and pytorch-fid too, which some tests take as oracles and skip without
  FACEATTR_CHROMIUM
                   a Chromium or Chrome, where none is on the PATH; in one the page of `faceattr demo` is tested, and gradio
                   and playwright are installed for that
  FACEATTR_CELEBA  a folder in CelebA's layout for the tests that need photographs (default ../shared/celeba-mini)
HELP
  exit
fi

# shellcheck source=launch/_environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"
environment test
cd "$ROOT"
python="$VENV/bin/python"
if [[ ${FACEATTR_TORCH:-} == 1 ]] && ! "$python" -c 'import torch' 2>/dev/null; then
  "$python" -m pip install --quiet torch==2.13.0 torchmetrics
  # Its distance alone is an oracle; what it depends on, torchvision, is for its networks.
  "$python" -m pip install --quiet --no-deps pytorch-fid
fi
if [[ -n ${FACEATTR_CHROMIUM:-} ]] || command -v chromium chromium-browser google-chrome chrome >/dev/null; then
  "$python" -c 'import gradio, playwright' 2>/dev/null || "$python" -m pip install --quiet -e "${ROOT}[demo]" playwright
fi

"$python" -m ruff format --check .
"$python" -m ruff check .
"$python" -m mypy
"$VENV/bin/shellcheck" launch/*.sh
exec "$python" -m pytest "$@"
