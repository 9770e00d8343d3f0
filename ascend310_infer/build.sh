#!/usr/bin/env bash
# Build the 310 application into out/ (or BUILD_DIR); ASCEND_HOME_PATH is the folder of the CANN toolkit.
set -Eeuo pipefail

main() {
  local here out
  here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
  out=${BUILD_DIR:-$here/out}
  cmake -S "$here" -B "$out" -DASCEND_HOME_PATH="${ASCEND_HOME_PATH:-}"
  cmake --build "$out" --parallel
  if [[ ! -x $out/infer310 ]]; then
    echo "error: no AscendCL below ASCEND_HOME_PATH='${ASCEND_HOME_PATH:-}'; only the core was built" >&2
    exit 1
  fi
}

main "$@"
