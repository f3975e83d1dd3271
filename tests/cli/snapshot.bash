# shellcheck shell=bash
# snapshot: what the scripts of this folder share. A script sources it, runs cases, ends with finish.
#   bash tests/cli/NAME.sh --record     writes tests/cli/expected/ anew; look at the diff
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
KEPT=${KEPT:-build/kept}
record=
[ "${1:-}" = --record ] && record=1
[ -x "$KEPT" ] || { echo "skip $KEPT is not built"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

verdict() { # verdict NAME STATUS: one line per case
    if [ "$2" -eq 0 ]; then echo "ok $1"; else echo "FAIL $1" && failed=1; fi
}
# run EXIT ARG...: kept ARG... with stdout in $work/out and stderr in $work/err; false if the exit
# status is not EXIT
run() {
    local want=$1 rc
    shift
    "$KEPT" "$@" >"$work/out" 2>"$work/err" </dev/null
    rc=$?
    [ $rc -eq "$want" ] || { echo "kept $*: exit status $rc, expected $want"; cat "$work/err"; return 1; }
}
# snap NAME EXIT ARG...: stdout and stderr as recorded, and the exit status
snap() {
    local name=$1 expected=tests/cli/expected/$1.txt bad=0
    shift
    run "$@" || bad=1
    { cat "$work/out"; sed 's/^/stderr: /' "$work/err"; } >"$work/both"
    [ -n "$record" ] && cp "$work/both" "$expected"
    diff -u "$expected" "$work/both" || bad=1
    verdict "$name" $bad
}
# expect NAME COMMAND...: the command succeeds
expect() {
    local name=$1
    shift
    "$@"
    verdict "$name" $?
}
finish() { exit $failed; }
