# Functions around MindSpore's dataset cache server, to be sourced: start, session, stop. They set variables instead of
# printing, so that an error ends the script and not only a subshell.
# shellcheck shell=bash

CACHE_PORT=${CACHE_PORT:-50052}
CACHE_LOGS=/tmp/mindspore/cache/log
CACHE_STARTED=0 # 1: by this script, so it stops it too
CACHE_SESSION=${CACHE_SESSION:-}
CACHE_SESSION_MADE=0

# cache_tool ARGUMENT...: run the server's command line tool; sets CACHE_OUTPUT and returns the tool's status.
cache_tool() {
  local python folder tool
  python=$(interpreter)
  folder=$(dirname -- "$(type -P -- "$python" || printf '%s' "$python")")
  tool=$(
    type -P "$folder/dataset-cache" || type -P "$folder/cache_admin" || # its name up to MindSpore 2.4
      type -P dataset-cache || type -P cache_admin
  ) || die "dataset-cache is not installed; it comes with MindSpore"
  CACHE_OUTPUT=$(LC_ALL=C "$tool" "$@" -p "$CACHE_PORT" 2>&1)
}

# bootup_cache_server [SPILL_DIR]: start the server, or use the one that runs on this port already.
bootup_cache_server() {
  local -a spill=()
  [[ -z ${1:-} ]] || spill=(-s "$1")
  if cache_tool --start ${spill[@]+"${spill[@]}"}; then
    CACHE_STARTED=1
    printf 'dataset cache server started on port %s, logs in %s\n' "$CACHE_PORT" "$CACHE_LOGS"
  elif [[ $CACHE_OUTPUT == *"already up and running"* ]]; then
    printf 'dataset cache server on port %s is used\n' "$CACHE_PORT"
  else
    die "the dataset cache server did not start: $CACHE_OUTPUT; its logs are in $CACHE_LOGS"
  fi
}

# generate_cache_session: sets CACHE_SESSION, which CACHE_SESSION=ID in the environment gives instead.
generate_cache_session() {
  [[ -z $CACHE_SESSION ]] || return 0
  cache_tool --generate_session || die "no dataset cache session: $CACHE_OUTPUT"
  CACHE_SESSION=${CACHE_OUTPUT##* }
  [[ $CACHE_SESSION =~ ^[0-9]+$ ]] || die "no dataset cache session in what the server said: $CACHE_OUTPUT"
  CACHE_SESSION_MADE=1
}

# shutdown_cache_server: stop the server if this script started it, else only give the session's memory back.
shutdown_cache_server() {
  if ((CACHE_STARTED)); then
    cache_tool --stop || [[ $CACHE_OUTPUT == *"has been shutdown already"* ]] ||
      printf 'error: the dataset cache server did not stop: %s\n' "$CACHE_OUTPUT" >&2
    CACHE_STARTED=0
  elif ((CACHE_SESSION_MADE)); then
    cache_tool --destroy_session "$CACHE_SESSION" || true
  fi
}
