#!/usr/bin/env bash
# From nothing to a trained, evaluated and exported network: makes .venv, then runs a quick start of examples/.
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

usage() {
  echo "Usage: bash scripts/quickstart.sh [mobilenetv2|mobilenetv2_quant|segformer]" >&2
  exit 2
}

main() {
  (($# <= 1)) || usage
  local script
  case ${1:-mobilenetv2} in
    mobilenetv2) script=examples/quickstart.py ;;
    mobilenetv2_quant) script=examples/quickstart_quant.py ;;
    segformer) script=examples/quickstart_segformer.py ;;
    *) usage ;;
  esac
  ensure_environment requirements.txt
  cd -- "$REPO_ROOT"
  exec "$VENV/bin/python" "$script"
}

main "$@"
