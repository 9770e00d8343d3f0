#!/usr/bin/env bash
# Find versions that fit together for every supported Python, on x86_64 and aarch64, without installing anything.
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

PYTHONS=(3.9 3.10 3.11 3.12)
PEERS_PYTHONS=(3.11 3.12) # requirements-peers.txt says why
LIMIT=300                 # seconds for one search
FROM_SOURCE=esdk-obs-python # Huawei publishes no wheel of it

# find_versions PYTHON MACHINE FILE...: prints them. uv, because pip would read the markers (python_version) for the Python
# that runs it.
find_versions() {
  timeout "$LIMIT" "$VENV/bin/uv" pip compile --quiet --no-header --no-annotate --no-python-downloads \
    --only-binary :all: --no-binary "$FROM_SOURCE" --python-version "$1" --python-platform "$2-manylinux_2_28" "${@:3}"
}

# check PYTHON MACHINE FILE...: says how many packages there are; a search that takes too long is no failure.
check() {
  local found status=0
  found=$(find_versions "$@") || status=$?
  case $status in
    0) printf 'Python %s, %s: %d packages for %s\n' "$1" "$2" "$(wc -l <<<"$found")" "${*:3}" ;;
    124) printf 'Python %s, %s: stopped after %d s: %s\n' "$1" "$2" "$LIMIT" "${*:3}" ;;
    *) die "Python $1, $2: no versions fit together for ${*:3}; the lines above say why" ;;
  esac
}

main() {
  local python
  ensure_environment requirements-dev.txt
  cd -- "$REPO_ROOT"
  if ! find_versions 3.11 x86_64 - <<<pyyaml >/dev/null 2>&1; then
    printf 'no package index answers; the requirement files were not checked\n'
    return
  fi
  for python in "${PYTHONS[@]}"; do
    check "$python" x86_64 requirements.txt requirements-dev.txt requirements-parity.txt
    check "$python" aarch64 requirements.txt
  done
  for python in "${PEERS_PYTHONS[@]}"; do
    check "$python" x86_64 requirements-peers.txt
  done
}

main "$@"
