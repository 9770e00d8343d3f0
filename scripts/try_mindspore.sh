#!/usr/bin/env bash
# Run the tests, or a command, with another MindSpore or another Python, in an environment of its own beside .venv.
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat >&2 <<'END'
usage: [PYTHON=python3.12] bash scripts/try_mindspore.sh VERSION [PYTEST_ARGUMENT...] [-- COMMAND...]
  bash scripts/try_mindspore.sh 2.10.0
  PYTHON=python3.12 bash scripts/try_mindspore.sh 2.8.0 tests/unit
  bash scripts/try_mindspore.sh 2.10.0 -- python -m benchmarks.cpu --only train,quant,segformer --out build/mindspore-2.10.0
  The environment, .venv-mindspore-VERSION-python3.X, is kept for the next time.
END
  exit 2
}

# use_version VERSION: the requirements with this MindSpore, installed into an environment that is then the active one.
use_version() {
  local python
  python=$(find_python)
  VENV=$REPO_ROOT/.venv-mindspore-$1-$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
  ensure_venv
  sed "s/^mindspore==[^ ]*/mindspore==$1/" "$REPO_ROOT/requirements.txt" >"$VENV/requirements.txt"
  install_requirements "$VENV/requirements.txt"
  ensure_environment requirements-dev.txt
  export VIRTUAL_ENV=$VENV PATH=$VENV/bin:$PATH # the scripts under test take the active environment's python
  unset PYTHON
}

main() {
  split_at_dashes "$@"
  set -- ${WORDS[@]+"${WORDS[@]}"}
  (($# > 0)) || usage
  [[ $1 =~ ^[0-9]+(\.[0-9]+)+$ ]] || wrong "VERSION is '$1'; it has to be a number as 2.10.0"
  ((${#FLAGS[@]} == 0 || $# == 1)) || wrong "the tests or a command; not both"
  use_version "$1"
  if ((${#FLAGS[@]})); then
    exec "${FLAGS[@]}"
  fi
  run_pytest "${@:2}"
}

main "$@"
