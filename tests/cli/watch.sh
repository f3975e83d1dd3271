#!/usr/bin/env bash
# kept watch: one look, lines where there is no terminal, a screen where there is one, refusals.
# shellcheck source=tests/cli/snapshot.bash
. "$(dirname "$0")/snapshot.bash"

db=$work/s.db
cp tests/data/study-schema-1.db "$db"
says() { # EXIT TEXT ARGUMENT...
    local want=$1 text=$2
    shift 2
    run "$want" watch "$@" && grep -q -- "$text" "$work/out" "$work/err"
}
expect watch-old says 1 'brings it up to date' "$db"
expect watch-check run 0 study check "$db"
expect watch-once says 0 '^2 of 2 samples, 6 of 6 cells filled in; complete' "$db" --once
expect watch-lines says 0 '^2 of 2 samples.*widest: knorm@60%' "$db"
one_line() { [ "$(wc -l <"$work/out")" -eq 1 ] && ! grep -q "$(printf '\033')" "$work/out"; }
expect watch-one-line one_line
expect watch-nothing says 2 'is missing'
expect watch-flag says 2 "did you mean '--once'" "$db" --onc
expect watch-every says 2 'whole number' "$db" --every 0
expect watch-none says 1 'No such file' "$work/none.db"
expect watch-no-study says 1 'is not a study' README.md
if command -v script >/dev/null; then
    screen() { script -qec "$KEPT watch $db" /dev/null </dev/null | grep -q 'widest intervals'; }
    expect watch-screen screen
fi
finish
