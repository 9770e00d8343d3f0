#!/usr/bin/env bash
# Write SegFormer's pictures of an image or a folder of images; the log is run_infer_device<ID>/infer.log.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # sh run_infer.sh
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"
# shellcheck source=scripts/segformer/arguments.sh
source "$REPO_ROOT/scripts/segformer/arguments.sh"

usage() {
  cat >&2 <<'EOF'
Usage: bash run_infer.sh DEVICE_ID CONFIG_FILE CKPT_PATH DATASET_PATH [OUTPUT_PATH] [-- FLAG_OF_INFER.PY ...]
DATASET_PATH is an image or a folder; OUTPUT_PATH defaults to infer_result.
Environment: PLATFORM=Ascend|GPU|CPU (default: what this machine has), DRY_RUN=1, BACKGROUND=1, PYTHON=/path/to/python
EOF
  exit 2
}

main() {
  unset ENGINE SERVER_ID NODES NODE_RANK # of a training on several devices
  split_at_dashes "$@"
  set -- ${WORDS[@]+"${WORDS[@]}"}
  (($# == 4 || $# == 5)) || wrong "$# arguments; 4 or 5 are needed"
  require_number DEVICE_ID "$1"
  find_config "$2"
  require_path -f CKPT_PATH "$3"
  require_path -e DATASET_PATH "$4"
  launch --platform "${PLATFORM:-auto}" --devices "$1" --log 'run_infer_device{device}/infer.log' "$REPO_ROOT/infer.py" \
    --config_path "$CONFIG" ${PLATFORM_FLAG[@]+"${PLATFORM_FLAG[@]}"} --infer_ckpt_path "$3" --data_path "$4" --infer_output_path "${5:-infer_result}" \
    ${FLAGS[@]+"${FLAGS[@]}"}
}

main "$@"
