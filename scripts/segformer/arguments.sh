# Sourced by the scripts of this folder: arguments that they share. The caller defines usage, which ends the script.
# shellcheck shell=bash disable=SC2034

# read_training CONFIG_FILE [DATASET_PATH [PRETRAINED_CKPT_PATH [RUN_EVAL]]]: sets TRAIN, the flags of train.py.
read_training() {
  find_config "$1"
  TRAIN=(--config_path "$CONFIG" ${PLATFORM_FLAG[@]+"${PLATFORM_FLAG[@]}"})
  if (($# >= 2)); then
    require_path -d DATASET_PATH "$2"
    TRAIN+=(--data_path "$2")
  fi
  if (($# >= 3)); then
    require_path -f PRETRAINED_CKPT_PATH "$3"
    TRAIN+=(--pretrained_ckpt_path "$3")
  fi
  if (($# == 4)); then
    [[ ${4,,} == true || ${4,,} == false ]] || wrong "RUN_EVAL is '$4'; it has to be True or False"
    TRAIN+=(--run_eval "$4")
  fi
}

# The flag that gives the environment's PLATFORM to train.py and the others as well; none where it is not set.
PLATFORM_FLAG=()
if [[ -n ${PLATFORM:-} ]]; then
  PLATFORM_FLAG=(--platform "$PLATFORM")
fi

# require_path -d|-f|-e NAME PATH: it is a folder (or an archive), a file, or either.
require_path() {
  case $1 in
    -d) require_data "$2" "$3" ;;
    -f) [[ -f $3 ]] || wrong "$2 '$3' is not a file" ;;
    *) [[ -e $3 ]] || wrong "$2 '$3' does not exist" ;;
  esac
}
