#!/usr/bin/env bash
# Build the CPU kernels and the 310 application for aarch64 and run their tests under emulation, on Debian.
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

PACKAGES=(g++-aarch64-linux-gnu qemu-user cmake g++ libjpeg-dev libpng-dev
  libstdc++6:arm64 libgomp1:arm64 libjpeg62-turbo-dev:arm64 libpng-dev:arm64)

usage() {
  cat >&2 <<'END'
usage: bash scripts/test_aarch64.sh [PYTEST_ARGUMENT...]
       bash scripts/test_aarch64.sh --install   # as root: the Debian packages that the tests need
END
  exit 2
}

is_installed() {
  dpkg-query --show --showformat='${Status}\n' "$1" 2>/dev/null | grep -q '^install ok installed$'
}

# find_missing: sets MISSING to the packages that are not installed.
find_missing() {
  local package
  MISSING=()
  for package in "${PACKAGES[@]}"; do
    is_installed "$package" || MISSING+=("$package")
  done
}

install_packages() {
  command -v apt-get >/dev/null || die "no apt-get; the aarch64 tests need Debian's packages ${PACKAGES[*]}"
  ((EUID == 0)) || die "not root; as root: bash scripts/test_aarch64.sh --install"
  find_missing
  ((${#MISSING[@]})) || return 0
  dpkg --add-architecture arm64
  apt-get update -qq
  apt-get install -qq -y --no-install-recommends "${MISSING[@]}" >/dev/null
}

main() {
  if [[ ${1:-} == --install ]]; then
    (($# == 1)) || usage
    install_packages
    return
  fi
  find_missing
  ((${#MISSING[@]} == 0)) || die "missing: ${MISSING[*]}; as root: bash scripts/test_aarch64.sh --install"
  ensure_environment requirements.txt requirements-dev.txt
  run_pytest -m slow -k aarch64 "$@" tests/aarch64 tests/unit/test_native_kernels.py
}

main "$@"
