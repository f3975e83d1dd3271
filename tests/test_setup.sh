#!/usr/bin/env bash
# Set-up: instruction sets from a CPU's flags, refusals in one line, and what a second run costs.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
. scripts/lib.sh
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
status=0
verdict() { # verdict NAME TRUTH [OUTPUT]
    if [ "$2" = 0 ]; then echo "ok $1"; else echo "FAIL $1" && status=1 && printf '%s\n' "${3:-}"; fi
}
# The caller's pair and instruction set must not decide what is tested here.
unset KEPT_LLAMA_ISA MAKEFLAGS MAKELEVEL
prefix=${KEPT_LLAMA_PREFIX:-}
unset KEPT_LLAMA_PREFIX

if [ "$(uname -m)" = x86_64 ]; then
    avx2='sse4_2 avx avx2 fma f16c bmi2'
    avx512="$avx2 avx512f avx512cd avx512bw avx512dq avx512vl"
    isa() { # isa FLAGS [LIMIT]: what is printed for a CPU with these flags
        printf 'processor\t: 0\nflags\t\t: fpu %s ht\n' "$1" >"$tmp/cpuinfo"
        KEPT_CPUINFO=$tmp/cpuinfo KEPT_LLAMA_ISA=${2:-} KEPT_CACHE=$tmp/c scripts/setup.sh isa
    }
    first() { isa "$@" | head -n 1; }
    [ "$(first '')" = base ]
    verdict isa_base $?
    [ "$(first "$avx2")" = avx2 ]
    verdict isa_avx2 $?
    [ "$(first 'avx avx2 f16c bmi2 sse4_2')" = base ]
    verdict isa_avx2_without_fma_is_base $?
    [ "$(first "$avx512")" = avx512 ]
    verdict isa_avx512 $?
    [ "$(first "$avx512 avx512vbmi avx512_vnni avx512_bf16")" = avx512+vbmi+vnni+bf16 ]
    verdict isa_avx512_all $?
    [ "$(first "$avx512 avx512_vnni" avx2)" = avx2 ]
    verdict isa_limit $?
    out=$(isa "$avx512 avx512_vnni")
    grep -q 'GGML_AVX512=ON' <<<"$out" && grep -q 'GGML_AVX512_VNNI=ON' <<<"$out" &&
        grep -q 'GGML_AVX512_BF16=OFF' <<<"$out" && grep -q 'GGML_NATIVE=OFF' <<<"$out"
    verdict isa_options $? "$out"
    [ "$(isa "$avx512" | sed -n 2p)" != "$(isa "$avx2" | sed -n 2p)" ]
    verdict isa_has_own_cache $?
    out=$(isa "$avx2" sse9 2>&1)
    [ $? -eq 1 ] && grep -q 'use base, avx2 or avx512' <<<"$out"
    verdict isa_limit_unknown $? "$out"
else
    echo "skip the instruction sets here are not x86-64"
fi

# Two tools less than a machine must have, no package manager: one line, and no failure.
mkdir "$tmp/bin"
for tool in bash sh dirname sed sort tr cut sha256sum uname getconf head id cat mkdir cmp env; do
    ln -s "$(command -v $tool)" "$tmp/bin/$tool"
done
out=$(PATH=$tmp/bin HOME=$tmp KEPT_CACHE=$tmp/c scripts/setup.sh packages 2>&1)
[ $? -eq 0 ] && [ "$(wc -l <<<"$out")" -eq 1 ] &&
    grep -q 'apt-get install bible-kjv build-essential cmake libjansson-dev liblapack-dev libsqlite3-dev libssl-dev libzstd-dev pkg-config' <<<"$out"
verdict packages_named_without_a_manager $? "$out"
# A package manager, but neither root nor sudo: it must not even be tried.
printf '#!/bin/sh\necho 1000\n' >"$tmp/bin/id.new" && chmod +x "$tmp/bin/id.new" && mv "$tmp/bin/id.new" "$tmp/bin/id"
printf '#!/bin/sh\necho called >%s/called\n' "$tmp" >"$tmp/bin/apt-get" && chmod +x "$tmp/bin/apt-get"
out=$(PATH=$tmp/bin HOME=$tmp KEPT_CACHE=$tmp/c scripts/setup.sh packages 2>&1)
[ $? -eq 0 ] && [ "$(wc -l <<<"$out")" -eq 1 ] && ! [ -e "$tmp/called" ]
verdict packages_named_without_root $? "$out"

out=$(KEPT_LLAMA_PREFIX=$tmp/nowhere BUILD=$tmp/b scripts/setup.sh llama 2>&1)
[ $? -ne 0 ] && grep -q "no libllama in $tmp/nowhere" <<<"$out" && ! [ -e "$tmp/b/deps.mk" ]
verdict prefix_without_llama $? "$out"
mkdir -p "$tmp/empty/lib" "$tmp/empty/include" && touch "$tmp/empty/lib/libllama.so"
out=$(KEPT_LLAMA_PREFIX=$tmp/empty BUILD=$tmp/b scripts/setup.sh llama 2>&1)
[ $? -ne 0 ] && grep -q 'does not link' <<<"$out" && [ "$(wc -l <<<"$out")" -eq 1 ] && ! [ -e "$tmp/b/deps.mk" ]
verdict prefix_that_does_not_link $? "$out"
# The script for plots cannot be had, or is another one: one line, no failure, and nothing left over.
out=$(PIP_NO_INDEX=1 PIP_FIND_LINKS=$tmp/empty KEPT_CACHE=$tmp/c scripts/setup.sh plots 2>&1)
[ $? -eq 0 ] && [ "$(grep -c 'kept is built without kept report' <<<"$out")" -eq 1 ] && ! ls "$tmp"/c/plots* >/dev/null 2>&1
verdict plots_that_cannot_be_had $? "$out"
mkdir -p "$tmp/fake" && printf '#!/bin/sh\ncase "$*" in *vl_convert*) echo "alert(1)" ;; *"-m pip"*) mkdir -p "$KEPT_CACHE" ;; esac\n' >"$tmp/fake/python3"
chmod +x "$tmp/fake/python3"
out=$(PATH=$tmp/fake:$PATH KEPT_CACHE=$tmp/c scripts/setup.sh plots 2>&1)
[ $? -eq 0 ] && grep -q 'made another script than this version was tested with' <<<"$out" && ! ls "$tmp"/c/plots* >/dev/null 2>&1
verdict plots_with_another_checksum $? "$out"
scripts/embed.sh page | tail -n 3 | tr -d '\n ' | grep -q 'page_plots\[\]="";'
verdict plots_empty_without_script $?
# A damaged file in the cache is not used, and without an index there is no other: one line says so.
mkdir -p "$tmp/c/dist" && echo damaged >"$tmp/c/dist/llama_cpp_python-0.3.36.tar.gz"
out=$(PIP_NO_INDEX=1 PIP_FIND_LINKS=$tmp/empty KEPT_CACHE=$tmp/c KEPT_LLAMA_ISA=base BUILD=$tmp/b \
    scripts/setup.sh llama 2>&1)
[ $? -ne 0 ] && grep -q 'could not get llama-cpp-python==0.3.36 with pip' <<<"$out" &&
    ! ls "$tmp"/c/llama >/dev/null 2>&1
verdict damaged_download $? "$out"

deps=$(sed -n 's/^LLAMA_PREFIX := //p' "${BUILD:-build}/deps.mk" 2>/dev/null)
if [ -n "$deps" ]; then
    export KEPT_LLAMA_PREFIX=${prefix:-$deps}
    out=$(BUILD=$tmp/b scripts/setup.sh llama 2>&1)
    verdict prefix_used $? "$out"
    before=$(stat -c %Y.%i "$tmp/b/deps.mk")
    sleep 1
    start=$(date +%s%N)
    out=$(BUILD=$tmp/b scripts/setup.sh packages llama 2>&1)
    rc=$?
    ms=$((($(date +%s%N) - start) / 1000000))
    [ $rc -eq 0 ] && [ "$(stat -c %Y.%i "$tmp/b/deps.mk")" = "$before" ]
    verdict second_run_changes_nothing $? "$out"
    [ $ms -lt 2000 ]
    verdict second_run_is_quick $? "it took $ms ms"
else
    echo "skip no llama.cpp here"
fi

if [ -s "$kept_text" ]; then
    head -c 54 "$kept_text" | grep -q '^In the beginning God created the heaven and the earth'
    verdict text_begins $? "$(head -c 80 "$kept_text")"
    [ "$(wc -l <"$kept_text")" -eq 1189 ] # the chapters of the King James text
    verdict text_has_all_chapters $? "$(wc -l <"$kept_text") lines"
    ! grep -qE '[0-9]+:[0-9]+' "$kept_text"
    verdict text_without_verse_marks $? "$(grep -oE -m1 '.{20}[0-9]+:[0-9]+' "$kept_text")"
else
    echo "skip no text here"
fi
exit $status
