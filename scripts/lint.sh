#!/usr/bin/env bash
# lint: the house rules that a machine can check. Prints "FILE:LINE: RULE" per violation.
#   scripts/lint.sh [-C DIR] [CHECK...]    checks: layers sizes format warnings headers strings shell
# scripts/lint_selftest.sh plants one violation of each rule and expects it to be found.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
if [ "${1:-}" = -C ]; then
    cd "$2" || exit 1
    shift 2
fi
c_files() { find include src tests bench -name '*.[ch]' 2>/dev/null | sort; }

# A file includes its own layer, the layers before it, and kept/. A score_, alloc_ or merge_ file in policy is
# written by contributors: it sees kept/policy.h and libc only.
layers='base kern cache policy model task train bench store report cli'
check_layers() {
    find src -name '*.[ch]' | sort | xargs awk -v layers="$layers" '
        BEGIN { n = split(layers, l, " "); for (i = 1; i <= n; i++) rank[l[i]] = i }
        FNR == 1 {
            split(FILENAME, path, "/")
            own = path[2]
            if (!(own in rank)) print FILENAME ":1: layer: " own " is not one of: " layers
            strict = FILENAME ~ /^src\/policy\/(score|alloc|merge)_/
        }
        /^[ \t]*#[ \t]*include[ \t]*"/ {
            split($0, q, "\"")
            split(q[2], to, "/")
            if (strict && q[2] != "kept/policy.h")
                print FILENAME ":" FNR ": layer: a policy file includes only kept/policy.h, not " q[2]
            else if (to[1] == "kept" || to[1] == "gen") next
            else if (!(to[1] in rank))
                print FILENAME ":" FNR ": layer: include \"" q[2] "\" by its layer"
            else if (rank[to[1]] > rank[own])
                print FILENAME ":" FNR ": layer: " own " must not include " q[2]
        }
        strict && /^[ \t]*#[ \t]*include[ \t]*</ &&
        !/<(assert|float|inttypes|limits|math|stdbool|stddef|stdint|stdlib|string)\.h>/ {
            print FILENAME ":" FNR ": layer: a policy file includes only kept/policy.h and libc: " $0
        }'
}

# File <= 600 lines (policy 120, Makefile 150), function <= 60, line <= 100 columns. A function opens
# and closes with a brace in the first column, which the format check makes sure of.
check_sizes() {
    c_files | xargs awk '
        function file_end() {
            if (name != "" && lines > max) print name ":" lines ": size: file over " max " lines"
        }
        FNR == 1 {
            file_end()
            name = FILENAME
            max = FILENAME ~ /^src\/policy\/(score|alloc|merge)_/ ? 120 : 600
            if (FILENAME ~ /^include/) max = 300
        }
        { lines = FNR }
        length($0) > 100 { print FILENAME ":" FNR ": size: line over 100 columns" }
        /^{/ { start = FNR }
        /^}/ {
            if (start && FNR - start + 1 > 62)
                print FILENAME ":" start ": size: function over 60 lines"
            start = 0
        }
        END { file_end() }'
    awk 'END { if (NR > 150) print "Makefile:" NR ": size: over 150 lines" }' Makefile
}

check_format() {
    command -v clang-format >/dev/null || { echo "lint: clang-format is missing"; return; }
    c_files | xargs clang-format --dry-run -Werror 2>&1 |
        sed -n 's/^\([^ ]*:[0-9]*\):[0-9]*: error: code should be.*/\1: format: run make format/p'
}

# Every source with all warnings as errors, under both compilers.
check_warnings() {
    local cc log
    for cc in gcc clang; do
        command -v $cc >/dev/null || { echo "lint: $cc is missing"; continue; }
        if ! log=$(MAKEFLAGS='' make -k -s -j"${JOBS:-2}" CC="$cc" syntax 2>&1); then
            grep -E ': (fatal )?error' <<<"$log" | sort -u || tail -n 3 <<<"$log"
        fi
    done
}

# Each public header alone, in C and in C++; each private one in C. src/kern/simd_* are not headers but
# the bodies that the file of each instruction set includes after its vector primitives.
check_headers() {
    local h cflags flags='-Wall -Wextra -Wpedantic -Werror -fsyntax-only -Iinclude -Isrc'
    cflags=$(sed -n 's/^LLAMA_CFLAGS := //p' "${BUILD:-build}/deps.mk" 2>/dev/null)
    # shellcheck disable=SC2086  # lists of flags
    for h in include/kept/*.h; do
        echo "#include \"${h#include/}\"" | gcc -std=c11 $flags -x c - 2>&1 | sed -n "/error/{s|^|$h: header alone in C: |p;q}"
        echo "#include \"${h#include/}\"" | g++ -std=c++11 $flags -x c++ - 2>&1 | sed -n "/error/{s|^|$h: header alone in C++: |p;q}"
    done
    # shellcheck disable=SC2086
    for h in src/*/*.h; do
        [ -f "$h" ] || continue
        case $h in src/kern/simd_*) continue ;; esac
        echo "#include \"${h#src/}\"" | gcc -std=c11 -D_GNU_SOURCE $flags $cflags -x c - 2>&1 |
            sed -n "/error/{s|^|$h: header alone in C: |p;q}"
    done
}

# Nothing in the tree may know a machine's folders or a registry's host.
check_strings() {
    local hosts="py""pi\.org|python""hosted|hugging""face\.co|deb\.deb""ian\.org|ana""conda\.org|npm""js\.(org|com)"
    local places="/wo""rk/|/tmp/d""l|/ro""ot/|/ho""me/[a-z]"
    git ls-files -co --exclude-standard 2>/dev/null | grep -v '\.gguf$' |
        xargs -d '\n' grep -nIE "$hosts|$places" 2>/dev/null |
        sed -E 's/^([^:]*:[0-9]*):(.*)/\1: string: a machine path or a registry host:\2/'
}

check_shell() {
    local f
    for f in scripts/*.sh tests/*.sh tests/cli/*.sh .ci/run; do
        [ -f "$f" ] || continue
        bash -n "$f" 2>&1 | sed 's/^/shell: /'
        if command -v shellcheck >/dev/null; then
            shellcheck -x -S warning -f gcc "$f" 2>&1 | sed 's/^/shell: /'
        fi
    done
}

bad=0
read -ra checks <<<"${*:-layers sizes format warnings headers strings shell}"
for check in "${checks[@]}"; do
    violations=$("check_$check")
    if [ -z "$violations" ]; then
        echo "ok lint_$check"
    else
        printf '%s\n' "$violations"
        echo "FAIL lint_$check"
        bad=1
    fi
done
exit $bad
