#!/usr/bin/env bash
# Evaluate a MobileNetV2-quant checkpoint with simulated quantisation; the result is in val/infer.log.
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
  split_at_dashes "$@"
  set -- ${WORDS[@]+"${WORDS[@]}"}
  read_evaluation "$@"
  launch "${LAUNCH[@]}" --first_log val/infer.log "$REPO_ROOT/eval.py" \
    --config_path "$REPO_ROOT/configs/mobilenetv2_quant/${1,,}.yaml" "${EVAL[@]}"
}

main "$@"
