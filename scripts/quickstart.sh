#!/usr/bin/env bash
# From nothing to a trained, evaluated and exported network: makes .venv, then runs a quick start of tools/.
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

usage() {
  echo "Usage: bash scripts/quickstart.sh [mobilenetv2|mobilenetv2_quant|segformer]" >&2
  exit 2
}

main() {
  (($# <= 1)) || usage
  local tool
  case ${1:-mobilenetv2} in
    mobilenetv2) tool=tools/quickstart.py ;;
    mobilenetv2_quant) tool=tools/quickstart_quant.py ;;
    segformer) tool=tools/quickstart_segformer.py ;;
    *) usage ;;
  esac
  ensure_environment requirements.txt
  cd -- "$REPO_ROOT"
  exec "$VENV/bin/python" "$tool"
}

main "$@"
