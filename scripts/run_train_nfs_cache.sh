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

CHILD='' ASKED='' INTERRUPTED=0 # the training, the signal that came, and whether it came during wait

# on_exit: stop what was started, unless it is wanted later.
on_exit() {
  trap '' TERM INT HUP # a second one would leave the server running
  if [[ ${KEEP_CACHE:-0} == 1 && -n $CACHE_SESSION ]]; then
    printf 'the dataset cache stays: CACHE_PORT=%s CACHE_SESSION=%s; stop it with dataset-cache --stop -p %s\n' \
      "$CACHE_PORT" "$CACHE_SESSION" "$CACHE_PORT"
  else
    shutdown_cache_server
  fi
}

# on_signal SIGNAL: pass it on to the training, or remember it until the server has started or stopped.
on_signal() {
  ASKED=$1 INTERRUPTED=1
  [[ -z $CHILD ]] || kill -"$1" "$CHILD" 2>/dev/null || true
}

# run_and_wait COMMAND...: a child, outside our process group, that gets our signals; returns its status.
run_and_wait() {
  local status
  (
    trap - INT # bash starts background processes with it ignored
    exec setsid "$@"
  ) &
  CHILD=$!
  [[ -z $ASKED ]] || on_signal "$ASKED"
  while :; do
    INTERRUPTED=0 status=0
    wait "$CHILD" || status=$?
    ((INTERRUPTED)) || return "$status" # a signal ends wait before the child ends
  done
}

main() {
  local python status=0
  read_train_arguments "$@"
  require_number CACHE_PORT "$CACHE_PORT"
  require_number CACHE_SESSION "${CACHE_SESSION:-0}"
  [[ -z ${CACHE_SPILL_DIR:-} || -d $CACHE_SPILL_DIR ]] || wrong "CACHE_SPILL_DIR '$CACHE_SPILL_DIR' is not a folder"
  local -a cache=(--enable_cache True --cache_session_id "${CACHE_SESSION:-SESSION}")
  [[ -z ${CACHE_SPILL_DIR:-} ]] || cache+=(--cache_spilling True)
  check_launch "${LAUNCH[@]}" "$REPO_ROOT/train.py" "${TRAIN[@]}" "${cache[@]}"
  python=$(interpreter)
  if [[ -z $CACHE_SESSION ]]; then # else its images are in memory already
    "$python" "$REPO_ROOT/src/launch/cache_memory.py" "$DATASET" ${CACHE_SPILL_DIR:+--spill "$CACHE_SPILL_DIR"}
  fi
  if [[ ${BACKGROUND:-0} == 1 ]]; then
    detach bash "${BASH_SOURCE[0]}" "$@"
    return
  fi
  export MS_CACHE_HOST=127.0.0.1 MS_CACHE_PORT=$CACHE_PORT
  trap on_exit EXIT
  trap 'on_signal TERM' TERM HUP
  trap 'on_signal INT' INT
  bootup_cache_server "${CACHE_SPILL_DIR:-}"
  generate_cache_session
  cache[3]=$CACHE_SESSION
  [[ -z $ASKED ]] || exit $((128 + $(kill -l "$ASKED")))
  run_and_wait "$python" "$LAUNCHER" ${OPTIONS[@]+"${OPTIONS[@]}"} "${LAUNCH[@]}" "$REPO_ROOT/train.py" "${TRAIN[@]}" "${cache[@]}" ||
    status=$?
  exit "$status"
}

main "$@"
