#!/usr/bin/env bash
# bench: runs every program of bench/ on this machine, and says what the machine is: its CPU, the
# instruction sets that llama.cpp was built for, and how busy it is (a busy machine measures itself).
# Arguments: names of benches to run (default: all).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
BUILD=${BUILD:-build}
[ -s "$kept_model" ] && export KEPT_MODEL=${KEPT_MODEL:-$kept_model}
[ -s "$kept_text" ] && export KEPT_TEXT=${KEPT_TEXT:-$kept_text}
sed -n 's/^model name[^:]*: /cpu: /p;T;q' /proc/cpuinfo
echo "cores: $(nproc), load: $(cut -d' ' -f1 /proc/loadavg), cc: $(cc -dumpfullversion)"
sed -n 's/^LLAMA_PREFIX := /llama.cpp: /p' "$BUILD/deps.mk"
for source in bench/*.c; do
    [ -f "$source" ] || die "there are no programs in bench"
    name=$(basename "$source" .c)
    if [ $# -gt 0 ]; then case " $* " in *" $name "*) ;; *) continue ;; esac fi
    echo "== $name"
    "$BUILD/bench/$name"
done
