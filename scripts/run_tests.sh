#!/usr/bin/env bash
# Run the tests that need no PyTorch; makes .venv first. Arguments go to pytest: bash scripts/run_tests.sh tests/unit -k config
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

main() {
  ensure_environment requirements.txt requirements-dev.txt
  cd -- "$REPO_ROOT"
  if (($# == 0)); then
    set -- -m "not parity and not slow" -n 2 --dist loadfile tests
  fi
  exec "$VENV/bin/python" -m pytest "$@"
}

main "$@"
