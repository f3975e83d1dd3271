#!/usr/bin/env bash
# suite: what takes too long for `make check`: the catalogue's other free models pulled and compared
# with libllama, and a larger run of strategies on each. Results go to $BUILD/suite (one JSON document
# and one table a model). About an hour on 2 cores. Arguments: models (default: those below).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
BUILD=${BUILD:-build}
out=$BUILD/suite
mkdir -p "$out"
models=("$@")
[ ${#models[@]} -gt 0 ] || models=(smollm2-135m qwen2.5-coder-0.5b)
for m in "${models[@]}"; do "$BUILD/kept" pull "$m"; done
KEPT_MODEL=$kept_model "$BUILD/tests/test_real"
text=()
if [ -s "$kept_text" ]; then text=(--text "$kept_text"); fi
"$BUILD/kept" selftest --model $kept_default_model
KEPT_SIM=40 "$BUILD/tests/test_stats_sim" # error rates to three digits; two minutes
for m in "${models[@]}"; do
    echo "== $m"
    "$BUILD/kept" run --study "$out/$m.db" --model "$m" --strategy all --budget 50%,25%,12.5% --length 2048 --samples 16 \
        --task niah_single,niah_multikey,niah_multivalue "${text[@]}" --out "$out/$m.json" |
        tee "$out/$m.txt"
done
