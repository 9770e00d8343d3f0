#!/usr/bin/env bash
# Check style and types: ruff (lint and format) and mypy on Python, ShellCheck on bash, clang-format on C++,
# mkdocs on the documents. Makes .venv.
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

main() {
  ensure_environment requirements.txt requirements-dev.txt # mypy reads the types of what is imported
  cd -- "$REPO_ROOT"
  "$VENV/bin/ruff" check .
  "$VENV/bin/ruff" format --check .
  "$VENV/bin/mypy"
  "$VENV/bin/shellcheck" -x scripts/*.sh scripts/*/*.sh ascend310_infer/*.sh .ci/run
  find src/cpu_kernels ascend310_infer tests/aarch64 tests/ascend310 -name out -prune -o \( -name '*.cc' -o -name '*.h' \) \
    -exec "$VENV/bin/clang-format" --dry-run --Werror {} +
  bash scripts/build_site.sh
  echo "lint: clean"
}

main "$@"
