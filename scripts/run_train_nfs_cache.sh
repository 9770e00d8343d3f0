#!/usr/bin/env bash
# Train MobileNetV2 with the images of a network file system kept in memory by MindSpore's dataset cache server.
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

# on_exit: stop what was started, unless it is wanted later.
on_exit() {
  if [[ ${KEEP_CACHE:-0} == 1 ]]; then
    printf 'the dataset cache stays: CACHE_PORT=%s CACHE_SESSION=%s; stop it with dataset-cache --stop -p %s\n' \
      "$CACHE_PORT" "$CACHE_SESSION" "$CACHE_PORT"
  else
    shutdown_cache_server
  fi
}

# run_and_wait COMMAND...: a child, outside our process group, that gets our signals; returns its status.
run_and_wait() {
  local child status=0
  setsid "$@" &
  child=$!
  trap 'kill -TERM "$child" 2>/dev/null || true' TERM
  trap 'kill -INT "$child" 2>/dev/null || true' INT
  while :; do
    status=0
    wait "$child" || status=$?
    kill -0 "$child" 2>/dev/null || break # a signal ends wait before the child ends
  done
  trap - TERM INT
  return "$status"
}

main() {
  local python status=0
  read_train_arguments "$@"
  require_number CACHE_PORT "$CACHE_PORT"
  local -a cache=(--enable_cache True --cache_session_id "${CACHE_SESSION:-SESSION}")
  [[ -z ${CACHE_SPILL_DIR:-} ]] || cache+=(--cache_spilling True)
  check_launch "${LAUNCH[@]}" "$REPO_ROOT/train.py" "${TRAIN[@]}" "${cache[@]}"
  python=$(interpreter)
  "$python" -m src.launch.cache_memory "$DATASET" ${CACHE_SPILL_DIR:+--spill "$CACHE_SPILL_DIR"}
  if [[ ${BACKGROUND:-0} == 1 ]]; then
    detach bash "${BASH_SOURCE[0]}" "$@"
    return
  fi
  export MS_CACHE_HOST=127.0.0.1 MS_CACHE_PORT=$CACHE_PORT
  bootup_cache_server "${CACHE_SPILL_DIR:-}"
  trap on_exit EXIT
  generate_cache_session
  cache[3]=$CACHE_SESSION
  run_and_wait "$python" -m src.launch ${OPTIONS[@]+"${OPTIONS[@]}"} "${LAUNCH[@]}" "$REPO_ROOT/train.py" "${TRAIN[@]}" "${cache[@]}" ||
    status=$?
  exit "$status"
}

main "$@"
