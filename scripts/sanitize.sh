#!/usr/bin/env bash
# sanitize: the tests, or the fuzzers, in a build folder of their own.
#   scripts/sanitize.sh address               every test
#   scripts/sanitize.sh thread [TEST...]      tests that start threads (test_engine)
#   scripts/sanitize.sh fuzzer [SECONDS]      every program of tests/fuzz, SECONDS each
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
make=(make --no-print-directory "-j${JOBS:-2}")
unset MAKEFLAGS MAKELEVEL # a make of its own, not a part of the one that called
export UBSAN_OPTIONS=print_stacktrace=1

fuzz() { # fuzz SECONDS
    local source name seeds failed=0
    for source in tests/fuzz/*.c; do
        [ -f "$source" ] || die "there are no programs in tests/fuzz"
        name=$(basename "$source" .c)
        mkdir -p "$BUILD/corpus/$name"
        seeds=()
        if [ -d "tests/fuzz/corpus/$name" ]; then seeds=("tests/fuzz/corpus/$name"); fi
        if "$BUILD/tests/fuzz/$name" -max_total_time="$1" -timeout=10 -rss_limit_mb=2048 -verbosity=0 \
            -print_final_stats=1 -artifact_prefix="$BUILD/crash-$name-" \
            "$BUILD/corpus/$name" "${seeds[@]}" >"$BUILD/$name.log" 2>&1; then
            echo "ok $name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$BUILD/$name.log") inputs"
        else
            echo "FAIL $name"
            tail -n 40 "$BUILD/$name.log"
            failed=1
        fi
    done
    return $failed
}

case ${1:-} in
address)
    export BUILD=build-asan SAN="-fsanitize=address,undefined -fno-sanitize-recover=all" OPT="-O1 -g"
    export ASAN_OPTIONS=detect_stack_use_after_return=1 TEST_TIMEOUT=${TEST_TIMEOUT:-900}
    "${make[@]}" all tests
    scripts/check.sh
    ;;
thread)
    # Needs a llama.cpp of its own (built once): what an uninstrumented thread team orders,
    # ThreadSanitizer cannot see. Only tests that start threads are worth their time here.
    unset KEPT_LLAMA_PREFIX
    export BUILD=build-tsan SAN="-fsanitize=thread" OPT="-O1 -g" KEPT_LLAMA_TSAN=1
    export TEST_TIMEOUT=${TEST_TIMEOUT:-1200}
    "${make[@]}" all tests
    if [ $# -eq 1 ]; then set -- thread test_engine; fi
    scripts/check.sh "${@:2}"
    ;;
fuzzer)
    export BUILD=build-fuzz CC=clang OPT="-O1 -g"
    export SAN="-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all"
    # No parser is in the kernels, 'address' has them, and clang takes 15 minutes for each of their
    # files with all three sanitizers (11 s without).
    export KERN_SAN="-fno-sanitize=address,undefined"
    "${make[@]}" fuzzers
    fuzz "${2:-30}"
    ;;
*) die "usage: scripts/sanitize.sh address|thread|fuzzer [SECONDS]" ;;
esac
