#!/usr/bin/env bash
# Train MobileNetV2 with the images of a network file system kept in memory by MindSpore's dataset cache server.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # sh run_train_nfs_cache.sh
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=scripts/train_arguments.sh
source "$REPO_ROOT/scripts/train_arguments.sh"
# shellcheck source=scripts/cache_util.sh
source "$REPO_ROOT/scripts/cache_util.sh"

usage() {
  cat >&2 <<'EOF'
Usage: bash run_train_nfs_cache.sh Ascend [CONFIG_PATH] DEVICE_NUM VISIBLE_DEVICES RANK_TABLE_FILE DATASET_PATH [CKPT_PATH FREEZE_LAYER [FILTER_HEAD]]
       bash run_train_nfs_cache.sh GPU DEVICE_NUM VISIBLE_DEVICES DATASET_PATH [CKPT_PATH FREEZE_LAYER [FILTER_HEAD]]
       bash run_train_nfs_cache.sh CPU DATASET_PATH [CKPT_PATH FREEZE_LAYER [FILTER_HEAD]]
       ... [-- FLAG_OF_TRAIN.PY ...]
Environment: as for run_train.sh, and CACHE_PORT (50052), CACHE_SPILL_DIR=FOLDER (when memory is short),
KEEP_CACHE=1 (leave the server and its session for later), CACHE_SESSION=ID (use a session that was kept)
EOF
  exit 2
}

main() {
  read_train_arguments "$@"
  require_number CACHE_PORT "$CACHE_PORT"
  require_number CACHE_SESSION "${CACHE_SESSION:-0}"
  [[ -z ${CACHE_SPILL_DIR:-} || -d $CACHE_SPILL_DIR ]] || wrong "CACHE_SPILL_DIR '$CACHE_SPILL_DIR' is not a folder"
  local -a cache=(--enable_cache True --cache_session_id "${CACHE_SESSION:-SESSION}") server=(--session "$CACHE_SESSION")
  if [[ -n ${CACHE_SPILL_DIR:-} ]]; then
    cache+=(--cache_spilling True)
    server+=(--spill "$CACHE_SPILL_DIR")
  fi
  [[ ${KEEP_CACHE:-0} != 1 ]] || server+=(--keep)
  check_launch "${LAUNCH[@]}" "$REPO_ROOT/train.py" "${TRAIN[@]}" "${cache[@]}"
  if [[ -z $CACHE_SESSION ]]; then # else its images are in memory already
    "$(interpreter)" "$REPO_ROOT/src/launch/cache_memory.py" "$DATASET" ${CACHE_SPILL_DIR:+--spill "$CACHE_SPILL_DIR"}
  fi
  if [[ ${BACKGROUND:-0} == 1 ]]; then
    detach bash "${BASH_SOURCE[0]}" "$@"
    return
  fi
  find_cache_server
  exec "${CACHE_SERVER[@]}" run "${server[@]}" "${COMMAND[@]}"
}

main "$@"
