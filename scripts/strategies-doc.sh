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
    table && /^\| `/ { next }
    { print; table = table && !named ? 0 : table }
    named { while ((getline line < rows) > 0) print line; named = 0; table = 1 }
    /^\| name \| axis \|/ { named = 1 }' "$doc" >"$new"
cmp -s "$new" "$doc" || cp "$new" "$doc"
