#!/usr/bin/env bash
# demo: the main job on the default model: several strategies beside the full cache.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
[ -s "$kept_model" ] || die "the default model is not here; run make setup"
exec "${BUILD:-build}/kept" run --model $kept_default_model "$@"
