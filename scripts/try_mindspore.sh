#!/usr/bin/env bash
# Run the tests with another MindSpore, or another Python, in an environment of its own beside .venv.
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat >&2 <<'END'
usage: [PYTHON=python3.12] bash scripts/try_mindspore.sh VERSION [PYTEST_ARGUMENT...]
  bash scripts/try_mindspore.sh 2.10.0
  PYTHON=python3.12 bash scripts/try_mindspore.sh 2.8.0 tests/unit
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
  (($# > 0)) || usage
  [[ $1 =~ ^[0-9]+(\.[0-9]+)+$ ]] || wrong "VERSION is '$1'; it has to be a number as 2.10.0"
  use_version "$1"
  run_pytest "${@:2}"
}

main "$@"
