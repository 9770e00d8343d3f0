#!/usr/bin/env bash
# Quantisation-aware training of MobileNetV2 on one or several Ascend cards, GPUs, or a CPU; see usage below.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # sh run_train.sh
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"

usage() {
  cat >&2 <<'EOF'
Usage: bash run_train.sh Ascend RANK_TABLE_FILE DATASET_PATH [PRETRAINED_CKPT_PATH]
       bash run_train.sh GPU DEVICE_ID_LIST DATASET_PATH [PRETRAINED_CKPT_PATH]
       bash run_train.sh CPU DATASET_PATH [PRETRAINED_CKPT_PATH]
       ... [-- FLAG_OF_TRAIN.PY ...]
RANK_TABLE_FILE is None for one card (DEVICE_ID). DEVICE_ID_LIST is like 0,1,2,3.
Environment: DEVICE_ID, DEVICE_NUM=N (CPU), ENGINE=msrun, SERVER_ID, NODES, NODE_RANK, MASTER_ADDR, MASTER_PORT,
ANY_TOPOLOGY=1 (not servers of two groups of four Ascend 910), DRY_RUN=1 (print what would run),
BACKGROUND=1 (detach), PYTHON=/path/to/python
EOF
  exit 2
}

# read_data DATASET_PATH [PRETRAINED_CKPT_PATH]
read_data() {
  (($# == 1 || $# == 2)) || wrong "$# arguments where DATASET_PATH [PRETRAINED_CKPT_PATH] belong"
  require_data DATASET_PATH "$1"
  TRAIN+=(--dataset_path "$1")
  if (($# == 2)); then
    [[ -f $2 ]] || wrong "PRETRAINED_CKPT_PATH '$2' is not a file"
    TRAIN+=(--pretrain_ckpt "$2")
  fi
}

read_ascend() {
  (($# >= 1)) || wrong "no RANK_TABLE_FILE"
  local first=0 # of a table too, whatever its cards
  if [[ $1 == None || $1 == none ]]; then
    first=${DEVICE_ID:-0}
    require_number DEVICE_ID "$first"
    LAUNCH+=(${DEVICE_ID:+--devices "$DEVICE_ID"})
  else
    [[ -f $1 ]] || wrong "RANK_TABLE_FILE '$1' is not a file"
    LAUNCH+=(--device_num 0 --rank_table "$1")
  fi
  LAUNCH+=(--log 'train/device{device}/train.log')
  TRAIN+=(--save_checkpoint_path "train/device$first/checkpoint")
  read_data "${@:2}"
}

read_gpu() {
  (($# >= 1)) || wrong "no DEVICE_ID_LIST"
  local -a ids
  [[ $1 =~ ^[0-9]+(,[0-9]+)*$ ]] || wrong "DEVICE_ID_LIST is '$1'; it has to be numbers with commas between them"
  IFS=, read -ra ids <<<"$1"
  LAUNCH+=(--device_num "${#ids[@]}" --devices "$1" --first_log train/train.log --log 'train/train_{rank}.log')
  TRAIN+=(--save_checkpoint_path train/checkpointckpt_0)
  read_data "${@:2}"
}

read_cpu() {
  require_number DEVICE_NUM "${DEVICE_NUM:-1}"
  LAUNCH+=(--device_num "${DEVICE_NUM:-1}" --first_log train/train.log --log 'train/train_{rank}.log')
  TRAIN+=(--save_checkpoint_path train/checkpoint)
  read_data "$@"
}

main() {
  split_at_dashes "$@"
  set -- ${WORDS[@]+"${WORDS[@]}"}
  require_platform "${1:-}"
  LAUNCH=(--platform "$1") TRAIN=(--config_path "$REPO_ROOT/configs/mobilenetv2_quant/${1,,}.yaml")
  "read_${1,,}" "${@:2}"
  launch "${LAUNCH[@]}" "$REPO_ROOT/train.py" "${TRAIN[@]}" ${FLAGS[@]+"${FLAGS[@]}"}
}

main "$@"
