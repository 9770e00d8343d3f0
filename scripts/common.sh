# Sourced by the other scripts: strict mode, messages, and the environment in .venv.
# shellcheck shell=bash
set -Eeuo pipefail

REPO_ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$REPO_ROOT/.venv

die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# The newest Python that MindSpore 2.8.0 has wheels for.
find_python() {
  local candidate
  for candidate in python3.11 python3.10 python3.9 python3; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 11))' 2>/dev/null; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  die "no Python 3.9, 3.10 or 3.11 found; install one of them"
}

# ensure_environment FILE...: create .venv if needed and install the requirement files that changed since last time.
ensure_environment() {
  local file stamp python
  if ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
    python=$(find_python)
    printf 'creating %s with %s\n' "$VENV" "$python"
    "$python" -m venv "$VENV" || die "cannot create $VENV; on Debian and Ubuntu: apt-get install python3-venv"
  fi
  for file in "$@"; do
    stamp=$VENV/.installed-$file
    if ! cmp -s "$REPO_ROOT/$file" "$stamp"; then
      printf 'installing %s\n' "$file"
      "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -r "$REPO_ROOT/$file" ||
        die "cannot install $file; the lines above say why"
      cp "$REPO_ROOT/$file" "$stamp"
    fi
  done
}
