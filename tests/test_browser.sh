#!/usr/bin/env bash
# The page of kept report in a real browser: console, marks, filters, keyboard, themes, downloads, a phone's
# width. Runs where Chromium and Python are.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
pages=${KEPT_BUILD:-build}/tests/test_page
[ -x "$pages" ] || { echo "skip $pages is not built"; exit 77; }
command -v python3 >/dev/null || { echo "skip python3 is missing"; exit 77; }
export PYTHONDONTWRITEBYTECODE=1
PYTHONPATH=tests python3 -c 'import browser, sys; sys.exit(not browser.find())' ||
    { echo "skip no Chromium is installed (Debian: chromium)"; exit 77; }
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
"$pages" pages "$tmp" >"$tmp/log"
rc=$?
[ $rc -eq 0 ] || { cat "$tmp/log"; exit $rc; }
python3 tests/browser_page.py "$tmp"
