#!/usr/bin/env bash
# suite: what takes too long for `make check`: the catalogue's other free models pulled and compared
# with libllama, error rates of the statistics to three digits, and the standing study
# (scripts/standing.sh), which goes on where it was stopped. A night on 2 cores. Arguments: models
# (default: all of the catalogue whose terms are open).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
BUILD=${BUILD:-build}
models=("$@")
[ ${#models[@]} -gt 0 ] || models=(smollm2-135m qwen2.5-coder-0.5b qwen2.5-coder-1.5b)
for m in "${models[@]}"; do "$BUILD/kept" pull "$m"; done
KEPT_MODEL=$kept_model "$BUILD/tests/test_real"
"$BUILD/kept" selftest --model $kept_default_model
KEPT_SIM=40 "$BUILD/tests/test_stats_sim" # two minutes
scripts/standing.sh "${models[@]}"
