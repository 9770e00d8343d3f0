# Sourced by the other scripts: strict mode, messages, the environment in .venv, and the start of training scripts.
# shellcheck shell=bash
set -Eeuo pipefail

REPO_ROOT=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$REPO_ROOT/.venv
LAUNCHER=$REPO_ROOT/src/launch/__main__.py # not -m src.launch, which takes a folder src of the working directory first

die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# A Python that MindSpore 2.8.0 has wheels for: $PYTHON, or 3.11, on which most tests ran, or another one.
find_python() {
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3.12 python3.10 python3.9 python3; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
      printf '%s\n' "$candidate"
      return
    fi
    [[ $candidate != "${PYTHON:-}" ]] || die "PYTHON is '$PYTHON'; it has to be a Python from 3.9 to 3.12"
  done
  die "no Python from 3.9 to 3.12 found; install one of them"
}

# ensure_environment FILE...: create .venv if needed and install the requirement files that changed since last time.
ensure_environment() {
  local file
  ensure_venv
  for file in "$@"; do
    install_requirements "$REPO_ROOT/$file"
  done
}

ensure_venv() {
  local python
  if ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
    python=$(find_python)
    printf 'creating %s with %s\n' "$VENV" "$python"
    "$python" -m venv "$VENV" || die "cannot create $VENV; on Debian and Ubuntu: apt-get install python3-venv"
  fi
}

# install_requirements PATH: unless the same text was installed under this name last time.
install_requirements() {
  local stamp=$VENV/.installed-${1##*/}
  if ! cmp -s "$1" "$stamp"; then
    printf 'installing %s, which can take some minutes\n' "${1##*/}"
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -r "$1" ||
      die "cannot install ${1##*/}; the lines above say why"
    cp "$1" "$stamp"
  fi
}

# run_pytest [ARGUMENT...]: the tests that need no PyTorch and are not slow, or what the arguments choose.
run_pytest() {
  cd -- "$REPO_ROOT"
  if (($# == 0)); then
    set -- -m "not parity and not slow" -n 2 --dist loadfile tests
  fi
  exec "$VENV/bin/python" -m pytest "$@"
}

# wrong SENTENCE: bad arguments; prints the caller's usage and ends with status 2.
wrong() {
  printf 'error: %s\n' "$*" >&2
  usage
}

require_number() {
  [[ $2 =~ ^[0-9]+$ ]] || wrong "$1 is '$2'; it has to be a whole number"
}

# require_data NAME PATH: a folder, or an archive that is read as one.
require_data() {
  [[ -d $2 || (-f $2 && ${2,,} == *.@(tar|zip)) ]] || wrong "$1 '$2' is not a folder, .tar or .zip file"
}

# find_config NAME: sets CONFIG to the file of the working directory, or of this repository, or, for a bare name or one in
# the originals' folder config/, to the shipped file of that name. src/zoo.py looks in the same places.
find_config() {
  local places=("$1" "$REPO_ROOT/$1")
  if [[ $1 != */* || $1 == ?(*/)config/"${1##*/}" ]]; then
    places+=("$REPO_ROOT"/configs/*/"${1##*/}")
  fi
  for CONFIG in "${places[@]}"; do
    [[ ! -f $CONFIG ]] || return 0
  done
  wrong "CONFIG_PATH '$1' is not a file"
}

# split_at_dashes ARGUMENT...: sets WORDS to what comes before --, FLAGS to what comes after.
# shellcheck disable=SC2034  # read by the callers
split_at_dashes() {
  WORDS=() FLAGS=()
  while (($#)) && [[ $1 != -- ]]; do
    WORDS+=("$1")
    shift
  done
  (($# == 0)) || FLAGS=("${@:2}")
}

require_platform() {
  [[ $1 == Ascend || $1 == GPU || $1 == CPU ]] || wrong "platform is '$1'; it has to be Ascend, GPU or CPU"
}

# read_evaluation PLATFORM DATASET_PATH CHECKPOINT_PATH: checks them and sets LAUNCH, options of the launcher, and EVAL,
# options of eval.py, with FLAGS.
# shellcheck disable=SC2034  # read by the callers
read_evaluation() {
  require_data DATASET_PATH "$2"
  [[ -f $3 ]] || wrong "CHECKPOINT_PATH '$3' is not a file"
  require_number DEVICE_ID "${DEVICE_ID:-0}"
  LAUNCH=(--platform "$1" ${DEVICE_ID:+--devices "$DEVICE_ID"})
  EVAL=(--platform "$1" --dataset_path "$2" --pretrain_ckpt "$3" ${FLAGS[@]+"${FLAGS[@]}"})
}

# interpreter: $PYTHON, the active environment's python, .venv's, or python3.
interpreter() {
  if [[ -n ${PYTHON:-} ]]; then
    printf '%s\n' "$PYTHON"
  elif [[ -n ${VIRTUAL_ENV:-}${CONDA_PREFIX:-} ]]; then
    printf 'python\n'
  elif [[ -x $VENV/bin/python ]]; then
    printf '%s\n' "$VENV/bin/python"
  else
    printf 'python3\n'
  fi
}

# export_pythonpath: the package src is found here first.
export_pythonpath() {
  [[ ${PYTHONPATH:-}: == "$REPO_ROOT:"* ]] || export PYTHONPATH=$REPO_ROOT${PYTHONPATH:+:$PYTHONPATH}
}

# check_launch OPTION... SCRIPT ARGUMENT...: sets OPTIONS, the launcher's options from the environment, and COMMAND, the
# whole command; ends the script where the request is wrong, or after printing the plan with DRY_RUN=1.
check_launch() {
  local python name variable status=0
  python=$(interpreter)
  OPTIONS=()
  for name in engine server_id nodes node_rank master_addr master_port; do
    variable=${name^^}
    [[ -z ${!variable:-} ]] || OPTIONS+=("--$name=${!variable}")
  done
  [[ ${ANY_TOPOLOGY:-0} != 1 ]] || OPTIONS+=(--any_topology)
  COMMAND=("$python" "$LAUNCHER" ${OPTIONS[@]+"${OPTIONS[@]}"} "$@")
  export_pythonpath
  if [[ ${DRY_RUN:-0} == 1 ]]; then
    exec "$python" "$LAUNCHER" --dry_run "${COMMAND[@]:2}"
  fi
  "$python" "$LAUNCHER" --dry_run "${COMMAND[@]:2}" >/dev/null || status=$?
  if ((status == 2)); then
    usage
  fi
  ((status == 0)) || exit "$status"
}

# launch OPTION... SCRIPT ARGUMENT...: run in the foreground and end with its status, or detached with BACKGROUND=1.
launch() {
  check_launch "$@"
  if [[ ${BACKGROUND:-0} == 1 ]]; then
    detach "${COMMAND[@]}"
  else
    exec "${COMMAND[@]}"
  fi
}

# detach COMMAND...: start it in a session of its own and say where to look.
detach() {
  BACKGROUND=0 setsid nohup "$@" </dev/null >/dev/null 2>>background.log &
  printf 'running in the background: pid %s, logs below %s, errors in background.log\n' "$!" "$PWD"
}
