#!/usr/bin/env bash
# From nothing to a trained, evaluated and exported network: makes .venv, then runs tools/quickstart.py.
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

usage() {
  echo "Usage: bash scripts/quickstart.sh [mobilenetv2]" >&2
  exit 2
}

main() {
  (($# <= 1)) || usage
  [[ ${1:-mobilenetv2} == mobilenetv2 ]] || usage
  ensure_environment requirements.txt
  cd -- "$REPO_ROOT"
  exec "$VENV/bin/python" tools/quickstart.py
}

main "$@"
