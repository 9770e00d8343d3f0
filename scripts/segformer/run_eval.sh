#!/usr/bin/env bash
# Evaluate a SegFormer checkpoint; the result is in run_eval_device<ID>/eval.log.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # sh run_eval.sh
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"
# shellcheck source=scripts/segformer/arguments.sh
source "$REPO_ROOT/scripts/segformer/arguments.sh"

usage() {
  cat >&2 <<'EOF'
Usage: bash run_eval.sh DEVICE_ID CONFIG_FILE CKPT_PATH DATASET_PATH [-- FLAG_OF_EVAL.PY ...]
Environment: PLATFORM=Ascend|GPU|CPU (default: what this machine has), DRY_RUN=1, BACKGROUND=1, PYTHON=/path/to/python
EOF
  exit 2
}

main() {
  unset ENGINE SERVER_ID NODES NODE_RANK # of a training on several devices
  split_at_dashes "$@"
  set -- ${WORDS[@]+"${WORDS[@]}"}
  (($# == 4)) || wrong "$# arguments; 4 are needed"
  require_number DEVICE_ID "$1"
  find_config "$2"
  require_path -f CKPT_PATH "$3"
  require_path -d DATASET_PATH "$4"
  launch --platform "${PLATFORM:-auto}" --devices "$1" --log 'run_eval_device{device}/eval.log' "$REPO_ROOT/eval.py" \
    --config_path "$CONFIG" ${PLATFORM_FLAG[@]+"${PLATFORM_FLAG[@]}"} --eval_ckpt_path "$3" --data_path "$4" ${FLAGS[@]+"${FLAGS[@]}"}
}

main "$@"
