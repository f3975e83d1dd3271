#!/usr/bin/env bash
# check: runs every test and counts its cases. `make check` calls it; make builds what it runs.
#
# A test is a program $BUILD/tests/test_* or a script tests/test_*.sh or tests/cli/*.sh. It prints
# "ok NAME" or "FAIL NAME" per case and "skip REASON" for what it could not do here, and exits 0, 1,
# or 77 for skipped. Arguments: names of tests to run, such as test_kern (default: all).
# Environment for tests: KEPT (the program), KEPT_SOURCE, KEPT_BUILD, and KEPT_MODEL, KEPT_TEXT and
# KEPT_READERS (a folder of Python packages) if they are there. TEST_TIMEOUT seconds each (300), JOBS at a time (2).
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
. scripts/lib.sh
BUILD=${BUILD:-build}
case $BUILD in /*) KEPT_BUILD=$BUILD ;; *) KEPT_BUILD=$PWD/$BUILD ;; esac
KEPT=$KEPT_BUILD/kept
KEPT_SOURCE=$PWD
export KEPT KEPT_BUILD KEPT_SOURCE
if [ -s "$kept_model" ]; then export KEPT_MODEL=${KEPT_MODEL:-$kept_model}; fi
if [ -d "$kept_readers" ]; then export KEPT_READERS=$kept_readers; fi
if [ -s "$kept_text" ]; then export KEPT_TEXT=${KEPT_TEXT:-$kept_text}; fi
# Two tests at a time on two cores: a thread that waits must not spin.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
tests=()
for t in "$BUILD"/tests/test_* tests/test_*.sh tests/cli/*.sh; do
    name=${t##*/}
    name=${name%.sh}
    case $t in
    *.o | *.d) continue ;;
    *.sh) [ -f "$t" ] || continue ;;
    # a program whose source is gone is left over from another commit
    *) [ -x "$t" ] && [ -f "tests/$name.c" ] || continue ;;
    esac
    if [ $# -gt 0 ]; then case " $* " in *" $name "*) ;; *) continue ;; esac fi
    tests+=("$t")
done
[ ${#tests[@]} -gt 0 ] || die "no tests found in $BUILD/tests and tests; run make tests"

one() { # one TEST: runs it; leaves NAME.log and NAME.rc
    local name=${1##*/} rc start=$SECONDS run=("$1")
    case $1 in *.sh) run=(bash "$1") ;; esac
    timeout -k 10 "${TEST_TIMEOUT:-300}" "${run[@]}" >"$out/$name.log" 2>&1 </dev/null
    rc=$?
    echo $rc >"$out/$name.rc"
    if [ $rc -ne 0 ] && [ $rc -ne 77 ]; then
        printf -- '---- %s failed (exit %d, %d s):\n' "$name" $rc $((SECONDS - start))
        tail -n 60 "$out/$name.log"
    fi
}
export -f one
export out
printf '%s\0' "${tests[@]}" | xargs -0 -n 1 -P "${JOBS:-2}" bash -c 'one "$0"'

passed=0 failed=0 skipped=0
for t in "${tests[@]}"; do
    name=${t##*/}
    log=$out/$name.log
    rc=$(cat "$out/$name.rc" 2>/dev/null || echo "not run")
    n_ok=$(grep -c '^ok ' "$log")
    n_fail=$(grep -c '^FAIL ' "$log")
    n_skip=$(grep -c '^skip ' "$log")
    case $rc in
    0) # a program in which no case ran has tested nothing
        if [ $((n_ok + n_fail + n_skip)) -eq 0 ]; then
            case $t in *.sh) n_ok=1 ;; *) n_fail=1 && echo "FAIL $name: it ran no case" ;; esac
        elif [ "$n_fail" -gt 0 ]; then
            echo "FAIL $name: exit status 0 although cases failed"
        fi
        ;;
    77) [ "$n_skip" -gt 0 ] || n_skip=1 ;;
    124 | 137) n_fail=$((n_fail + 1)) && echo "FAIL $name: took longer than ${TEST_TIMEOUT:-300} s" ;;
    *) [ "$n_fail" -gt 0 ] || { n_fail=1 && echo "FAIL $name: exit status $rc"; } ;;
    esac
    grep '^FAIL ' "$log" | sed "s/^FAIL /FAIL $name: /"
    if [ "$n_skip" -gt 0 ]; then
        reason=$(grep '^skip ' "$log" | cut -c6- | sort -u | tr '\n' ';' | sed 's/;$//; s/;/; /g')
        echo "skip $name: ${reason:-no reason given}"
    fi
    passed=$((passed + n_ok)) failed=$((failed + n_fail)) skipped=$((skipped + n_skip))
done
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
