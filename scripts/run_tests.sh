#!/usr/bin/env bash
# Run the tests that need no PyTorch; makes .venv first. Arguments go to pytest: bash scripts/run_tests.sh tests/unit -k config
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

main() {
  ensure_environment requirements.txt requirements-dev.txt
  run_pytest "$@"
}

main "$@"
