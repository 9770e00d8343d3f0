#!/usr/bin/env bash
# Inference on an Ascend 310: build the application, convert the model, run it, compute the accuracy.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # sh run_infer_310.sh
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat >&2 <<'EOF'
Usage: bash run_infer_310.sh MINDIR_PATH DATA_PATH LABEL_PATH DVPP|CPU [DEVICE_ID] [-- OPTION_OF_THE_APPLICATION ...]
MINDIR_PATH: .om, .air, .onnx, or .mindir with one of these beside it; LABEL_PATH None: no accuracy
Written here: result_Files/, time_Result/, infer.log, acc.log, build.log, atc.log, om/
Environment: ASCEND_HOME_PATH (CANN toolkit), SOC_VERSION (Ascend310), BATCH (1), BUILD_DIR, PYTHON=/path/to/python
EOF
  exit 2
}

holds_acl() {
  [[ -f $1/include/acl/acl.h || -f $1/runtime/include/acl/acl.h || -f $1/acllib/include/acl/acl.h ]]
}

# find_toolkit: sets ASCEND_HOME_PATH to the CANN toolkit and makes atc and the libraries found.
find_toolkit() {
  local home=${ASCEND_HOME:-/usr/local/Ascend} candidate
  for candidate in "${ASCEND_HOME_PATH:-}" "${ASCEND_TOOLKIT_HOME:-}" "$home/ascend-toolkit/latest" "$home/latest" "$home"; do
    if [[ -n $candidate ]] && holds_acl "$candidate"; then
      ASCEND_HOME_PATH=$candidate
      break
    fi
    candidate=
  done
  [[ -n $candidate ]] || die "no CANN toolkit found; install it or set ASCEND_HOME_PATH to the folder that holds include/acl"
  [[ -n ${ASCEND_OPP_PATH:-} ]] || source_set_env
  local libraries=$ASCEND_HOME_PATH/lib64:$ASCEND_HOME_PATH/runtime/lib64:$ASCEND_HOME_PATH/acllib/lib64
  export ASCEND_HOME_PATH LD_LIBRARY_PATH=$libraries:$home/driver/lib64${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  export PATH=$ASCEND_HOME_PATH/bin:$ASCEND_HOME_PATH/compiler/bin:$ASCEND_HOME_PATH/atc/bin:$PATH
}

# source_set_env: CANN's own settings, which atc needs, where the caller has not made them. They are a script of the
# vendor's that reads unset variables and may end on a status that means nothing.
source_set_env() {
  local file
  for file in "$(dirname -- "$ASCEND_HOME_PATH")/set_env.sh" "$ASCEND_HOME_PATH/set_env.sh"; do
    if [[ -f $file ]]; then
      set +eu
      # shellcheck source=/dev/null
      source "$file"
      set -eu
      return
    fi
  done
}

# set_aside NAME...: give what an earlier run wrote a number.
set_aside() {
  local name number
  for name in "$@"; do
    [[ -e $name ]] || continue
    number=1
    while [[ -e $name.$number ]]; do number=$((number + 1)); done
    mv -- "$name" "$name.$number"
  done
}

build() {
  bash "$REPO_ROOT/ascend310_infer/build.sh" >build.log 2>&1 ||
    die "the application cannot be built: $(grep -m 1 -iE 'error|not found|could not' build.log || tail -n 1 build.log); see build.log"
}

main() {
  split_at_dashes "$@"
  set -- ${WORDS[@]+"${WORDS[@]}"}
  (($# == 4 || $# == 5)) || wrong "$# arguments; 4 or 5 are needed"
  local mode=${4^^} device=${5:-0} status=0
  [[ -f $1 ]] || wrong "MINDIR_PATH '$1' is not a file"
  [[ -d $2 ]] || wrong "DATA_PATH '$2' is not a folder"
  [[ $3 == None || -f $3 ]] || wrong "LABEL_PATH '$3' is not a file; tools/make_label_file.py makes one"
  [[ $mode == DVPP || $mode == CPU ]] || wrong "the fourth argument is '$4'; it has to be DVPP or CPU"
  require_number DEVICE_ID "$device"
  [[ ${BATCH:-1} =~ ^0*[1-9][0-9]*$ ]] || wrong "BATCH is '$BATCH'; it has to be a whole number from 1"
  find_toolkit
  set_aside build.log atc.log
  build
  local python said
  python=$(interpreter)
  said=$("$python" "$REPO_ROOT/tools/make_om.py" "$1" --mode "$mode" --batch "${BATCH:-0}" \
    --soc_version "${SOC_VERSION:-Ascend310}")
  local -a made # the offline model, and options for the application
  mapfile -t made <<<"$said"
  local -a command=("${BUILD_DIR:-$REPO_ROOT/ascend310_infer/out}/infer310" --model "${made[0]}" --data "$2" --mode "$mode"
    --device_id "$device" "${made[@]:1}")
  [[ $3 == None ]] || command+=(--label_path "$3")
  [[ -z ${BATCH:-} ]] || command+=(--batch "$BATCH")
  set_aside result_Files time_Result infer.log acc.log
  "${command[@]}" ${FLAGS[@]+"${FLAGS[@]}"} 2>&1 | tee infer.log || status=$?
  # 3: done, but some images could not be used; that is for the caller to judge
  ((status == 0 || status == 3)) || die "the application ended with status $status; infer.log says why"
  if [[ $3 != None ]]; then
    "$python" "$REPO_ROOT/postprocess.py" --result_path result_Files --label_path "$3" 2>&1 | tee acc.log
  fi
  exit "$status"
}

main "$@"
