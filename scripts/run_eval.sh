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
  [[ ${1:-} == Ascend || ${1:-} == GPU || ${1:-} == CPU ]] ||
    wrong "platform is '${1:-}'; it has to be Ascend, GPU or CPU"
  (($# == 3 || $# == 4)) || wrong "$# arguments; 3 or 4 are needed"
  [[ -d $2 ]] || wrong "DATASET_PATH '$2' is not a folder"
  [[ -f $3 ]] || wrong "CHECKPOINT_PATH '$3' is not a file"
  require_number DEVICE_ID "${DEVICE_ID:-0}"
  local -a flags=(--platform "$1" --dataset_path "$2" --pretrain_ckpt "$3" ${FLAGS[@]+"${FLAGS[@]}"})
  if (($# == 4)); then
    find_config "$4"
    flags=(--config_path "$CONFIG" "${flags[@]}")
  fi
  launch --platform "$1" ${DEVICE_ID:+--devices "$DEVICE_ID"} --first_log eval.log "$REPO_ROOT/eval.py" "${flags[@]}"
}

main "$@"
