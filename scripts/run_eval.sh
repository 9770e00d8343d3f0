#!/usr/bin/env bash
# Evaluate a MobileNetV2 checkpoint; the result is in eval.log.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # sh run_eval.sh
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat >&2 <<'EOF'
Usage: bash run_eval.sh Ascend|GPU|CPU DATASET_PATH CHECKPOINT_PATH [CONFIG_PATH] [-- FLAG_OF_EVAL.PY ...]
Environment: DEVICE_ID (card), DRY_RUN=1, BACKGROUND=1, PYTHON=/path/to/python
EOF
  exit 2
}

main() {
  unset ENGINE SERVER_ID NODES NODE_RANK # of a training on several devices
  split_at_dashes "$@"
  set -- ${WORDS[@]+"${WORDS[@]}"}
  require_platform "${1:-}"
  (($# == 3 || $# == 4)) || wrong "$# arguments; 3 or 4 are needed"
  read_evaluation "${@:1:3}"
  if (($# == 4)); then
    find_config "$4"
    EVAL=(--config_path "$CONFIG" "${EVAL[@]}")
  fi
  launch "${LAUNCH[@]}" --first_log eval.log "$REPO_ROOT/eval.py" "${EVAL[@]}"
}

main "$@"
