# Sourced by run_train.sh and run_train_nfs_cache.sh: their arguments as options of the launcher (LAUNCH) and of
# train.py (TRAIN). The caller defines usage, which ends the script.
# shellcheck shell=bash disable=SC2034

# read_train_arguments PLATFORM ARGUMENT... [-- FLAG...]
read_train_arguments() {
  split_at_dashes "$@"
  set -- ${WORDS[@]+"${WORDS[@]}"}
  LAUNCH=() TRAIN=() DATASET=''
  case ${1:-} in
    Ascend) read_ascend "${@:2}" ;;
    GPU) read_gpu "${@:2}" ;;
    CPU) read_cpu "${@:2}" ;;
    *) wrong "platform is '${1:-}'; it has to be Ascend, GPU or CPU" ;;
  esac
  LAUNCH=(--platform "$1" "${LAUNCH[@]}")
  TRAIN=(--platform "$1" "${TRAIN[@]}" ${FLAGS[@]+"${FLAGS[@]}"})
}

read_ascend() {
  if [[ ${1:-} == *.yaml || ${1:-} == *.yml ]]; then
    find_config "$1"
    TRAIN+=(--config_path "$CONFIG")
    shift
  fi
  (($# >= 4)) || wrong "$# arguments after the platform and CONFIG_PATH; at least 4 are needed"
  require_number DEVICE_NUM "$1"
  LAUNCH+=(--device_num "$1" --devices "$2" --rank_table "$3")
  LAUNCH+=(--log 'train/rank{rank}/log{rank}.log')
  read_data "${@:4}"
}

read_gpu() {
  (($# >= 3)) || wrong "$# arguments after the platform; at least 3 are needed"
  require_number DEVICE_NUM "$1"
  LAUNCH+=(--device_num "$1" --devices "$2" --first_log train.log)
  read_data "${@:3}"
}

read_cpu() {
  (($# >= 1)) || wrong "no DATASET_PATH"
  require_number DEVICE_NUM "${DEVICE_NUM:-1}"
  LAUNCH+=(--device_num "${DEVICE_NUM:-1}" --first_log train.log)
  read_data "$@"
}

# read_data DATASET_PATH [CKPT_PATH FREEZE_LAYER [FILTER_HEAD]]
read_data() {
  DATASET=$1
  require_data DATASET_PATH "$1"
  TRAIN+=(--dataset_path "$1")
  (($# != 2)) || wrong "CKPT_PATH is given without FREEZE_LAYER"
  (($# <= 4)) || wrong "too many arguments, '$5' first"
  if (($# >= 3)); then
    [[ -f $2 ]] || wrong "CKPT_PATH '$2' is not a file"
    [[ $3 == none || $3 == backbone ]] || wrong "FREEZE_LAYER is '$3'; it has to be none or backbone"
    TRAIN+=(--pretrain_ckpt "$2" --freeze_layer "$3")
  fi
  if (($# == 4)); then
    [[ ${4,,} == true || ${4,,} == false ]] || wrong "FILTER_HEAD is '$4'; it has to be True or False"
    TRAIN+=(--filter_head "$4")
  fi
}
