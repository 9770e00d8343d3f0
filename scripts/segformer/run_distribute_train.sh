#!/usr/bin/env bash
# Train SegFormer on several cards; the logs are run_distribute_train_device<ID>/train.log. batch_size is shared out.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # sh run_distribute_train.sh
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"
# shellcheck source=scripts/segformer/arguments.sh
source "$REPO_ROOT/scripts/segformer/arguments.sh"

usage() {
  cat >&2 <<'EOF'
Usage: bash run_distribute_train.sh DEVICE_NUM RANK_TABLE_FILE CONFIG_FILE [DATASET_PATH [PRETRAINED_CKPT_PATH [RUN_EVAL]]] [-- FLAG_OF_TRAIN.PY ...]
RANK_TABLE_FILE is None where no rank table is used (GPU, CPU, ENGINE=msrun).
Environment: PLATFORM=Ascend|GPU|CPU (default: what this machine has), BATCH_SIZE (of all cards together, default 16),
ENGINE=msrun, SERVER_ID, NODES, NODE_RANK, MASTER_ADDR, MASTER_PORT,
ANY_TOPOLOGY=1 (not servers of two groups of four Ascend 910), DRY_RUN=1, BACKGROUND=1, PYTHON=/path/to/python
EOF
  exit 2
}

main() {
  split_at_dashes "$@"
  set -- ${WORDS[@]+"${WORDS[@]}"}
  (($# >= 3 && $# <= 6)) || wrong "$# arguments; 3 to 6 are needed"
  require_number DEVICE_NUM "$1"
  require_number BATCH_SIZE "${BATCH_SIZE:-16}"
  read_training "${@:3}"
  launch --platform "${PLATFORM:-auto}" --device_num "$1" --rank_table "$2" \
    --log 'run_distribute_train_device{device}/train.log' \
    "$REPO_ROOT/train.py" "${TRAIN[@]}" --batch_size "${BATCH_SIZE:-16}" ${FLAGS[@]+"${FLAGS[@]}"}
}

main "$@"
