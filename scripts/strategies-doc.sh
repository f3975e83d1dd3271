#!/bin/sh
# Rewrites the table of parts and recipes in docs/strategies.md from the registry.
# Usage: scripts/strategies-doc.sh BUILD
set -eu
doc=docs/strategies.md
rows=$(mktemp)
new=$(mktemp)
trap 'rm -f "$rows" "$new"' EXIT
"$1/tests/test_spec" --rows >"$rows"
awk -v rows="$rows" '
    /^\| `/ { if (!done) while ((getline line < rows) > 0) print line; done = 1; next }
    { print }' "$doc" >"$new"
cmp -s "$new" "$doc" || cp "$new" "$doc"
