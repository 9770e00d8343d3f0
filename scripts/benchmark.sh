#!/usr/bin/env bash
# Measure this machine against the peers, unattended: makes .venv and .venv-peers, then runs benchmarks.cpu, which goes on
# where it was stopped and ends with tables and a picture in build/benchmark.
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

main() {
  ensure_environment requirements.txt
  VENV=$REPO_ROOT/.venv-peers ensure_environment requirements-peers.txt
  cd -- "$REPO_ROOT"
  exec "$VENV/bin/python" -m benchmarks.cpu "$@"
}

main "$@"
