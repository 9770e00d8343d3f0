#!/usr/bin/env bash
# The other name of run_infer.sh.
exec bash "$(dirname -- "${BASH_SOURCE[0]}")/run_infer.sh" "$@"
