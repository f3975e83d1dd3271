#!/usr/bin/env bash
# The example program stays short, builds from the public headers alone, and frees what it says.
# shellcheck source=tests/cli/snapshot.bash
. "$(dirname "$0")/snapshot.bash"
build=${KEPT_BUILD:-build}

short() { [ "$(wc -l <examples/embed.c)" -le 80 ]; }
expect embed-short short
[ -f "$build/deps.mk" ] && [ -f "$build/libkept.a" ] || { echo "skip no $build/libkept.a"; finish; }
value() { sed -n "s/^$1 *:= *//p" "$build/deps.mk"; }
# the library may have been built with sanitizers, whose runtime the program then needs too
san=$(grep -o -e '-fsanitize=[a-z,]*' "$build/flags" 2>/dev/null | head -1)
builds() {
    # shellcheck disable=SC2046,SC2086  # lists of words
    ${CC:-cc} -std=c11 -Wall -Wextra -Wpedantic -Werror $san -Iinclude -o "$work/embed" examples/embed.c \
        "$build/libkept.a" $(value LLAMA_LIBS) $(value DEPS_LIBS) -lm -ldl -pthread
}
expect embed-builds builds
usage() { "$work/embed" 2>/dev/null; [ $? -eq 2 ]; }
expect embed-usage usage
[ -n "${KEPT_MODEL:-}" ] || { echo "skip no model file"; finish; }
prompt=$(for i in $(seq 60); do echo "Line $i says that the sky is blue and the grass is green."; done)
frees() { # a quarter of about 900 tokens, in pages, is well below a third of the full cache
    "$work/embed" "$KEPT_MODEL" h2o@25% "$prompt" >"$work/out" || return 1
    awk '/bytes of K\/V held/ { found = 1; if (!($2 > 0 && $2 * 2.5 < $NF)) bad = 1; print }
         END { exit bad || !found }' "$work/out"
}
expect embed-frees frees
wrong_file() { "$work/embed" /nonexistent full x 2>/dev/null; [ $? -eq 1 ]; }
expect embed-wrong-file wrong_file
finish
