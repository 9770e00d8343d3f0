#!/usr/bin/env bash
# Train SegFormer on one card; the log is run_standalone_train_device<ID>/train.log.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # sh run_standalone_train.sh
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"
# shellcheck source=scripts/segformer/arguments.sh
source "$REPO_ROOT/scripts/segformer/arguments.sh"

usage() {
  cat >&2 <<'EOF'
Usage: bash run_standalone_train.sh DEVICE_ID CONFIG_FILE [DATASET_PATH [PRETRAINED_CKPT_PATH [RUN_EVAL]]] [-- FLAG_OF_TRAIN.PY ...]
Environment: PLATFORM=Ascend|GPU|CPU (default: what this machine has), DRY_RUN=1, BACKGROUND=1, PYTHON=/path/to/python
EOF
  exit 2
}

main() {
  unset ENGINE SERVER_ID NODES NODE_RANK # of a training on several devices
  split_at_dashes "$@"
  set -- ${WORDS[@]+"${WORDS[@]}"}
  if [[ ${2:-} != *.yaml && ${3:-} == *.yaml ]]; then # documented under this name too
    exec bash "$REPO_ROOT/scripts/segformer/run_distribute_train.sh" "$@" ${FLAGS[@]+-- "${FLAGS[@]}"}
  fi
  (($# >= 2 && $# <= 5)) || wrong "$# arguments; 2 to 5 are needed"
  require_number DEVICE_ID "$1"
  read_training "${@:2}"
  launch --platform "${PLATFORM:-auto}" --devices "$1" --log 'run_standalone_train_device{device}/train.log' \
    "$REPO_ROOT/train.py" "${TRAIN[@]}" ${FLAGS[@]+"${FLAGS[@]}"}
}

main "$@"
