#!/usr/bin/env bash
# lint_selftest: plants one violation of each rule in a copy of the tree and expects lint to find it.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
BUILD=${BUILD:-build}
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
failed=0

# expect NAME CHECK FILE PATTERN: in a tree where CHECK is content, stdin becomes FILE; CHECK must then
# print PATTERN and fail.
expect() {
    local name=$1 check=$2 file=$3 pattern=$4 log
    rm -rf "${copy:?}/t"
    mkdir -p "$copy/t/$(dirname "$file")" "$copy/t/"{include/kept,src/base,scripts,"$BUILD"}
    cp Makefile .clang-format .gitignore "$copy/t/"
    echo 'extern int kept_x;' | tee "$copy/t/include/kept/kept.h" >"$copy/t/src/base/ok.c"
    printf '#!/bin/sh\n' >"$copy/t/scripts/setup.sh"
    chmod +x "$copy/t/scripts/setup.sh"
    git -C "$copy/t" init -q
    if ! log=$(scripts/lint.sh -C "$copy/t" "$check" 2>&1); then
        echo "FAIL lint_sees_$name: $check complains of a clean tree: $log"
        failed=1
        return
    fi
    cat >"$copy/t/$file"
    if log=$(scripts/lint.sh -C "$copy/t" "$check" 2>&1) || ! grep -q -- "$pattern" <<<"$log"; then
        echo "FAIL lint_sees_$name"
        printf '%s\n' "$log" | tail -n 5
        failed=1
    else
        echo "ok lint_sees_$name"
    fi
}

expect upward_include layers src/base/x.c 'x.c:1: layer: base must not include cache' <<<'#include "cache/cache.h"'
expect unknown_layer layers src/other/x.c 'x.c:1: layer: other is not one' <<<'int x;'
expect policy_include layers src/policy/score_x.c 'only kept/policy.h, not base' <<<'#include "base/base.h"'
expect policy_system layers src/policy/alloc_x.c 'and libc' <<<'#include <stdio.h>'
expect long_line sizes src/base/x.c 'x.c:1: size: line over' <<<"int x; // $(printf '%0100d' 0)"
expect long_file sizes src/base/x.c 'size: file over 600' < <(for i in {1..601}; do echo "int x$i;"; done)
expect long_policy sizes src/policy/score_x.c 'size: file over 120' < <(for i in {1..121}; do echo "int x$i;"; done)
expect long_function sizes src/base/x.c 'x.c:2: size: function over' < <(
    printf 'void f(void)\n{\n'
    for _ in {1..61}; do echo '    ;'; done
    echo '}'
)
expect bad_format format src/base/x.c 'x.c:1: format' <<<'int   x ;'
expect warning warnings src/base/x.c 'unused variable' <<<'static inline void f(void) { int x; }'
expect header_alone headers include/kept/x.h 'header alone in C:' <<<'extern size_t x;'
expect header_cpp headers include/kept/x.h 'header alone in C++:' <<<'extern int class;'
expect private_header headers src/base/x.h 'x.h: header alone in C:' <<<'extern size_t x;'
expect machine_path strings src/base/x.c 'x.c:1: string' <<<"/* /ro""ot/x */"
expect registry_host strings README.md 'README.md:1: string' <<<"files.python""hosted.org"
expect shell_syntax shell scripts/x.sh 'x.sh' <<<'if true; then'
exit $failed
