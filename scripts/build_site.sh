#!/usr/bin/env bash
# Make a site of README, docs/ and model cards in build/site; a broken link or anchor ends it with status 1. Makes .venv.
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

usage() {
  echo "usage: bash scripts/build_site.sh" >&2
  exit 2
}

main() {
  (($# == 0)) || wrong "no arguments are taken, and '$1' is given"
  ensure_environment requirements.txt requirements-dev.txt
  cd -- "$REPO_ROOT"
  local pages=build/site_pages files
  # The pages keep their places, so that links work as they do in the repository.
  mkdir -p "$pages"
  find "$pages" -type f -delete
  mapfile -t files < <(find ./*.md docs configs -name '*.md' -o -path 'docs/images/*.png' -o -path 'docs/site.css')
  cp --parents -- "${files[@]}" LICENSE NOTICE CITATION.cff "$pages"
  NO_MKDOCS_2_WARNING=1 "$VENV/bin/mkdocs" build --strict --quiet
  echo "site: build/site/index.html"
}

main "$@"
