#!/usr/bin/env bash
# Check style: ruff (lint and format) on Python, ShellCheck on bash. Makes .venv first.
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

main() {
  ensure_environment requirements-dev.txt
  cd -- "$REPO_ROOT"
  "$VENV/bin/ruff" check .
  "$VENV/bin/ruff" format --check .
  "$VENV/bin/shellcheck" -x scripts/*.sh scripts/*/*.sh .ci/run
  echo "lint: clean"
}

main "$@"
