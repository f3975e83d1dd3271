#!/usr/bin/env bash
# Help on every level: it prints, fits a screen, exits 0, and the manual page knows all of it.
# shellcheck source=tests/cli/snapshot.bash
. "$(dirname "$0")/snapshot.bash"

snap help-overview 0 --help
commands=$("$KEPT" --help | awk '/^  [a-z]+ / && !/kept /{print $1}')
same_three_ways() { # COMMAND: `help C` and `C --help` and `C -h` are one text, on stdout
    run 0 "$1" --help && cp "$work/out" "$work/a" && [ -s "$work/a" ] && [ ! -s "$work/err" ] &&
        run 0 help "$1" && cmp "$work/a" "$work/out" && run 0 "$1" -h && cmp "$work/a" "$work/out"
}
fits() { # COMMAND: at most 100 columns and 60 lines
    run 0 "$1" --help && awk 'length($0) > 100 || NR > 60 { print; bad = 1 } END { exit bad }' "$work/out"
}
in_manual() { # COMMAND: the manual page has it and each of its options
    local flag bad=0
    run 0 "$1" --help || return 1
    grep -q "^\.SS .*kept $1\b" man/kept.1 || { echo "man/kept.1: no section of kept $1"; bad=1; }
    for flag in $(grep -o -e '--[a-z][a-z-]*' "$work/out" | sort -u); do
        sed 's/\\-/-/g' man/kept.1 | grep -q -e "$flag\b" || { echo "man/kept.1: no $flag of kept $1"; bad=1; }
    done
    return $bad
}
for c in $commands; do
    expect "help-$c" same_three_ways "$c"
    expect "help-fits-$c" fits "$c"
    expect "help-manual-$c" in_manual "$c"
done
some_commands() { [ "$(echo "$commands" | wc -w)" -ge 8 ]; }
expect help-lists-commands some_commands
snap help-spec 0 help spec
snap help-version 0 version --help
version() { run 0 version && cp "$work/out" "$work/a" && run 0 --version && cmp "$work/a" "$work/out"; }
expect version version
finish
