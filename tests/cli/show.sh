#!/usr/bin/env bash
# kept show: every name that kept ls prints, and specs.
# shellcheck source=tests/cli/snapshot.bash
. "$(dirname "$0")/snapshot.bash"

names() { "$KEPT" ls ${1+"$1"} | sed -n 's/^  \([a-z][a-z0-9-]*\) .*/\1/p'; }
every_name() {
    local n
    [ "$(names | wc -l)" -ge 20 ] || return 1
    for n in $(names); do
        run 0 show "$n" && grep -q '^axis ' "$work/out" && head -1 "$work/out" | grep -q "^$n" || return 1
    done
}
expect show-every-name every_name
every_score() { # resolved once, the resolved spelling shows the same
    local n needs spec
    for n in $(names score; names recipe); do
        [ "$n" = full ] && continue # a bare name shows the part
        run 0 show "$n" || return 1
        needs=$(sed -n 's/^  \([a-z-]*\) *(must be given.*/\1=1/p' "$work/out" | paste -sd,)
        spec="$n${needs:+($needs)}@25%"
        grep -q -e '^stands for *store(' -e '^stands for *park(' "$work/out" && spec="full+$n" # only a codec or a rest
        run 0 show "$spec" && cp "$work/out" "$work/a" || return 1
        run 0 show "$(sed -n 's/^resolved *//p' "$work/a")" && cmp "$work/a" "$work/out" || return 1
    done
}
expect show-every-score every_score
budgets() {
    run 0 show h2o@512 && grep -q '^budget  *512 tokens' "$work/out" &&
        run 0 show h2o@64MiB && grep -q '^budget  *64.* MiB' "$work/out" &&
        run 0 show h2o@12.5% && grep -q '^budget  *12\.5%' "$work/out"
}
expect show-budgets budgets
says() { tr -s ' \n' ' ' <"$work/out" | grep -q -e "$1"; } # wherever the lines break
acts() {
    run 0 show 'h2o+decode(every=8)@512' && says 'then every 8 decode steps' &&
        says 'every=8 (not the default)' && run 0 show 'h2o+chunks@512' &&
        says 'evicts after every prefill chunk' && run 0 show 'h2o+chunks(slack=7)@512' &&
        says 'at most 7 slots above' && run 0 show 'h2o+turns@512' && says 'end of every turn' &&
        run 0 show 'h2o+pressure@512' && says 'runs short' && run 0 show 'h2o+layers@512' &&
        says 'through it'
}
expect show-acts acts
snap show-nothing 2 show
snap show-two 2 show h2o@20% tova@20%
finish
