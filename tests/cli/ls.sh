#!/usr/bin/env bash
# kept ls: reads the registry, so nothing here names its parts.
# shellcheck source=tests/cli/snapshot.bash
. "$(dirname "$0")/snapshot.bash"

axes="score weight wrapper allocator protection schedule position merge codec controller read recipe"
all() { run 0 ls && for a in $axes; do
    grep -qx "$a" "$work/out" || return 1
done; }
expect ls-all-axes all
one_axis() { # AXIS: alone it prints what it prints among all
    run 0 ls && awk -v a="$1" 'NF == 0 { on = 0 } $0 == a { on = 1 } on' "$work/out" >"$work/a" &&
        run 0 ls "$1" && cmp "$work/a" "$work/out" && [ "$(wc -l <"$work/out")" -gt 1 ]
}
for a in $axes; do expect "ls-$a" one_axis "$a"; done
narrow() { run 0 ls && awk 'length($0) > 80 { print; bad = 1 } END { exit bad }' "$work/out"; }
expect ls-width narrow
# Every part with a family is in one of them, and in none twice.
families() {
    for f in window attention keys passes learned oracle allocation; do
        run 0 ls --family "$f" && grep -E '^  [a-z0-9-]+( |$)' "$work/out"
    done | sort >"$work/all"
    [ -s "$work/all" ] && [ -z "$(uniq -d "$work/all")" ] && grep -q '^  h2o ' "$work/all"
}
expect ls-families families
with() { run 0 ls --needs keys && grep -q '^  knorm ' "$work/out" && ! grep -q '^  h2o ' "$work/out"; }
expect ls-needs with
without() {
    run 0 ls score --without keys && grep -q '^  h2o ' "$work/out" && ! grep -q '^  knorm ' "$work/out"
}
expect ls-without without
cost() { run 0 ls --cost state && grep -q '^  h2o ' "$work/out" && ! grep -q '^  recency ' "$work/out"; }
expect ls-cost cost
nothing() { run 0 ls --needs zzz && grep -q 'nothing is of that kind' "$work/out"; }
expect ls-nothing nothing
snap ls-family 2 ls --family keyz
snap ls-unknown 2 ls sore
snap ls-two 2 ls score recipe
finish
