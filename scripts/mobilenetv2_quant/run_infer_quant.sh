#!/bin/sh
# The other name of run_infer.sh.
exec bash "$(dirname -- "$0")/run_infer.sh" "$@"
