#!/usr/bin/env bash
# kept ls: reads the registry, so nothing here names its parts.
# shellcheck source=tests/cli/snapshot.bash
. "$(dirname "$0")/snapshot.bash"

all() { run 0 ls && for a in score allocator protection schedule position recipe; do
    grep -qx "$a" "$work/out" || return 1
done; }
expect ls-all-axes all
one_axis() { # AXIS: alone it prints what it prints among all
    run 0 ls && awk -v a="$1" 'NF == 0 { on = 0 } $0 == a { on = 1 } on' "$work/out" >"$work/a" &&
        run 0 ls "$1" && cmp "$work/a" "$work/out" && [ "$(wc -l <"$work/out")" -gt 1 ]
}
for a in score allocator protection schedule position recipe; do expect "ls-$a" one_axis "$a"; done
narrow() { run 0 ls && awk 'length($0) > 80 { print; bad = 1 } END { exit bad }' "$work/out"; }
expect ls-width narrow
snap ls-unknown 2 ls sore
snap ls-two 2 ls score recipe
finish
