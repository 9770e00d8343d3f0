#!/usr/bin/env bash
# Evaluate a MobileNetV2-quant checkpoint; the result is in val/infer.log.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # sh run_infer.sh
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"

usage() {
  cat >&2 <<'EOF'
Usage: bash run_infer.sh Ascend|GPU|CPU DATASET_PATH CHECKPOINT_PATH [-- FLAG_OF_EVAL.PY ...]
Environment: DEVICE_ID (card), DRY_RUN=1, BACKGROUND=1, PYTHON=/path/to/python
EOF
  exit 2
}

main() {
  unset ENGINE SERVER_ID NODES NODE_RANK # of a training on several devices
  split_at_dashes "$@"
  set -- ${WORDS[@]+"${WORDS[@]}"}
  require_platform "${1:-}"
  (($# == 3)) || wrong "$# arguments; 3 are needed"
  read_evaluation "$@"
  launch "${LAUNCH[@]}" --first_log val/infer.log "$REPO_ROOT/eval.py" \
    --config_path "$REPO_ROOT/configs/mobilenetv2_quant/${1,,}.yaml" "${EVAL[@]}"
}

main "$@"
