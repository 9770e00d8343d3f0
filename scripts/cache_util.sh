# Functions around MindSpore's dataset cache server, to be sourced after common.sh: start, session, stop. They set
# variables instead of printing, so that an error ends the script and not only a subshell.
# shellcheck shell=bash

CACHE_PORT=${CACHE_PORT:-50052}
CACHE_STARTED=0 # 1: by this script, so it stops it too
CACHE_SESSION=${CACHE_SESSION:-}
CACHE_SESSION_MADE=0

# find_cache_server: sets CACHE_SERVER, the command that asks for something of the server on CACHE_PORT.
find_cache_server() {
  local python
  python=$(interpreter)
  export_pythonpath
  CACHE_SERVER=("$python" "$REPO_ROOT/src/launch/cache_server.py" --port "$CACHE_PORT" --python "$python")
}

# bootup_cache_server [SPILL_DIR]: start the server, or use the one that runs on this port already.
bootup_cache_server() {
  local said
  find_cache_server
  said=$("${CACHE_SERVER[@]}" start --spill "${1:-}") || exit
  printf '%s\n' "$said"
  [[ $said != *" started "* ]] || CACHE_STARTED=1
}

# generate_cache_session: sets CACHE_SESSION, which CACHE_SESSION=ID in the environment gives instead.
generate_cache_session() {
  [[ -z $CACHE_SESSION ]] || return 0
  find_cache_server
  CACHE_SESSION=$("${CACHE_SERVER[@]}" session) || exit
  CACHE_SESSION_MADE=1
}

# shutdown_cache_server: stop the server if this script started it, else only give the session's memory back.
shutdown_cache_server() {
  find_cache_server
  if ((CACHE_STARTED)); then
    "${CACHE_SERVER[@]}" stop
    CACHE_STARTED=0
  elif ((CACHE_SESSION_MADE)); then
    "${CACHE_SERVER[@]}" destroy "$CACHE_SESSION"
  fi
}
