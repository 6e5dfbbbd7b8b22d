# shellcheck shell=bash
# Sourced by the scripts beside it: makes the clone's own Python environment, or takes the one that is there.
#
#   source launch/_environment.sh   ->  $ROOT
#   environment [EXTRA]             ->  $VENV, with the package installed in place, and its extra (such as `test`)
#
# The environment is .venv, or .venv-3.12 where .venv already belongs to another Python version than PYTHON selects.
# It is installed anew only when setup.cfg or pyproject.toml changed, or the clone was moved.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export PIP_DISABLE_PIP_VERSION_CHECK=1

# The major.minor version of an interpreter; fails for a command that is none, or that cannot make environments.
_python_version() {
  "$1" -c 'import ensurepip, sys, venv; print("%d.%d" % sys.version_info[:2])' 2>/dev/null
}

# The interpreter to use: PYTHON if set, else the first of the usual names. A pyenv shim may exist for a version that
# is installed but not selected, so pyenv's own folder is searched too.
_find_python() {
  local names=("${PYTHON:-}") pyenv="${PYENV_ROOT:-$HOME/.pyenv}/versions" name candidate
  [[ -n ${PYTHON:-} ]] || names=(python3.11 python3.12 python3 python)
  for name in "${names[@]}"; do
    for candidate in "$name" "$pyenv"/*/bin/"$name"; do
      case "$(_python_version "$candidate")" in
        3.11 | 3.12) echo "$candidate" && return ;;
      esac
    done
  done
  echo "${PYTHON:+PYTHON=$PYTHON: }no Python 3.11 or 3.12 with venv and ensurepip found;" \
    "name one, as in PYTHON=/path/to/python3.12 (Debian: apt install python3-venv)" >&2
  return 2
}

environment() {
  local extra="${1:-}" python version wanted key stamp
  VENV="$ROOT/.venv"
  version="$(_python_version "$VENV/bin/python" || true)"
  if [[ -n ${PYTHON:-} || ! $version =~ ^3\.1[12]$ ]]; then
    python="$(_find_python)" || return
    wanted="$(_python_version "$python")"
    if [[ -n $version && $version != "$wanted" ]]; then
      VENV="$ROOT/.venv-$wanted"
      version="$(_python_version "$VENV/bin/python" || true)"
    fi
    if [[ $version != "$wanted" ]]; then
      echo "Making $VENV with $python (Python $wanted)"
      "$python" -m venv --clear "$VENV"
    fi
  fi
  key="$(cat "$ROOT/setup.cfg" "$ROOT/pyproject.toml" <(echo "$ROOT") | cksum)"
  stamp="$VENV/.faceattr${extra:+-$extra}"
  if [[ $(cat "$stamp" 2>/dev/null || true) != "$key" ]]; then
    echo "Installing faceattr_jax${extra:+[$extra]} and its requirements into $VENV"
    "$VENV/bin/python" -m pip install --quiet --prefer-binary --editable "$ROOT${extra:+[$extra]}"
    echo "$key" | tee "$VENV/.faceattr" >"$stamp"
  fi
}

# After `environment`, on a machine with an NVIDIA GPU: JAX's CUDA build, cuda12 or what CUDA names, into $VENV.
cuda_build() {
  "$VENV/bin/python" -m pip install --quiet "jax[${CUDA:-cuda12}]>=0.10.2,<0.13"
}

# For the launch scripts: --dry-run shows the commands that would run, and runs none.
DRY_RUN=
run() {
  if [[ -n $DRY_RUN ]]; then
    printf '%q ' "$@" && echo
  else
    "$@"
  fi
}

# Takes the flags that come before the other arguments, which are $REST then. --help and --dry-run are every script's;
# for those with a value a script defines `flag NAME VALUE`, which fails for a name that it does not know.
flags() {
  while [[ ${1:-} == -* ]]; do
    case "$1" in
      --help | -h) help && exit ;;
      --dry-run) DRY_RUN=1 ;;
      *)
        if ! declare -F flag >/dev/null || ! flag "$1" "${2:-}"; then
          echo "$1: there is no such argument; see ./launch/$(basename "$0") --help" >&2
          exit 2
        fi
        shift
        ;;
    esac
    shift
  done
  REST=("$@")
}

# Prints the header of the script that calls, between its first line and the first that is no comment, as its help.
help() {
  awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"
}

# Loads the config CONFIG [--config.KEY=VALUE ...], so that a mistake is told here, not on a machine that costs money.
# Needs ml_collections alone; in a dry run without an environment it is left out.
check_config() {
  local python="${VENV:-$ROOT/.venv}/bin/python" config="$1" argument overrides=()
  shift
  for argument in "$@"; do
    [[ $argument == --config.*=* ]] || { echo "$argument: write --config.KEY=VALUE" >&2 && return 2; }
    overrides+=("${argument#--config.}")
  done
  if [[ ! -x $python ]]; then
    echo "(no environment in $ROOT yet: the config is not checked)" >&2
    return
  fi
  "$python" - "$config" "${overrides[@]}" <<'PYTHON'
import sys

from faceattr_jax import config
from faceattr_jax.errors import UserError

try:
    config.load(sys.argv[1], dict(override.split("=", 1) for override in sys.argv[2:]))
except UserError as error:
    sys.exit(f"faceattr: {error}")
PYTHON
}
