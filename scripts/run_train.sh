#!/usr/bin/env bash
# Train MobileNetV2 on one or several Ascend cards, GPUs, or a CPU; see usage below and docs/several_devices.md.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # sh run_train.sh
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=scripts/train_arguments.sh
source "$REPO_ROOT/scripts/train_arguments.sh"

usage() {
  cat >&2 <<'EOF'
Usage: bash run_train.sh Ascend [CONFIG_PATH] DEVICE_NUM VISIBLE_DEVICES RANK_TABLE_FILE DATASET_PATH [CKPT_PATH FREEZE_LAYER [FILTER_HEAD]]
       bash run_train.sh GPU DEVICE_NUM VISIBLE_DEVICES DATASET_PATH [CKPT_PATH FREEZE_LAYER [FILTER_HEAD]]
       bash run_train.sh CPU DATASET_PATH [CKPT_PATH FREEZE_LAYER [FILTER_HEAD]]
       ... [-- FLAG_OF_TRAIN.PY ...]
FREEZE_LAYER is none or backbone, FILTER_HEAD True or False, RANK_TABLE_FILE None for one card.
Environment: DEVICE_NUM=N (CPU), ENGINE=msrun, SERVER_ID, NODES, NODE_RANK, MASTER_ADDR, MASTER_PORT,
ANY_TOPOLOGY=1 (not servers of two groups of four Ascend 910), DRY_RUN=1 (print what would run),
BACKGROUND=1 (detach), PYTHON=/path/to/python
EOF
  exit 2
}

main() {
  read_train_arguments "$@"
  launch "${LAUNCH[@]}" "$REPO_ROOT/train.py" "${TRAIN[@]}"
}

main "$@"
