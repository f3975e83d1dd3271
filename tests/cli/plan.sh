#!/usr/bin/env bash
# kept plan: the published example, strategies, what fits, JSON.
# shellcheck source=tests/cli/snapshot.bash
. "$(dirname "$0")/snapshot.bash"

snap plan-llama-2-70b 0 plan --model llama-2-70b --context 4K,128K
snap plan-strategies 0 plan --model llama-3.1-8b --context 8Ki,32Ki --strategy h2o@20% \
    --strategy 'snapkv+ada+chunks@1024' --memory 24GB --weights 5GB
snap plan-windows 0 plan --model gemma3-270m --context 32Ki --batch 4
snap plan-shape 0 plan --layers 32 --heads 32 --kv-heads 8 --head-size 128 --window 4096 \
    --global-every 2 --context 1000,1M --bits 8
published() {
    run 0 plan --model llama-2-70b && grep -q '10\.5 GB  *336 GB$' "$work/out"
}
expect plan-published-figures published
default_is_the_example() {
    run 0 plan --layers 80 --heads 64 --kv-heads 8 --head-size 128 && sed 1d "$work/out" >"$work/a" &&
        run 0 plan --model llama-2-70b && sed 1d "$work/out" | diff "$work/a" -
}
expect plan-shape-is-model default_is_the_example
json() {
    run 0 plan --model llama-2-70b --memory 80GB --strategy h2o@20% --format json &&
        python3 - "$work/out" <<'PY'
import json, sys
j = json.load(open(sys.argv[1]))
rows = {r.get("strategy", r["kind"]): r for r in j["rows"]}
assert rows["all_heads"]["figures"][0]["bytes"] == 2 * 80 * 64 * 128 * 4000 * 2
assert rows["grouped"]["figures"][1]["bytes"] == 2 * 80 * 8 * 128 * 128000 * 2
assert rows["all_heads"]["fits"]["longest_context"] == 80 * 10**9 // (2 * 80 * 64 * 128 * 2)
assert rows["h2o@20%"]["figures"][0]["bytes"] < rows["full"]["figures"][0]["bytes"] / 4
assert j["weight_bytes"] is None and j["memory_bytes"] == 80 * 10**9
PY
}
if command -v python3 >/dev/null; then expect plan-json json; else echo "skip python3 is missing"; fi
packs() { # a prompt is read over f16 before it is packed
    run 0 plan --model qwen2.5-7b --context 8K --strategy full+q4 --strategy full+quest &&
        grep -A1 '^full+q4 ' "$work/out" | grep -q 'peak.* 46[0-9] MB' &&
        ! grep -A1 '^full+quest ' "$work/out" | grep -q peak
}
expect plan-peak-of-a-codec packs
of_a_file() {
    run 0 plan --model "$KEPT_MODEL" --context 4K --memory 1GB && ! grep -q 'not known' "$work/out" &&
        grep -q '30 layers, 9 query heads, 3 KV heads of size 64' "$work/out"
}
if [ -n "${KEPT_MODEL:-}" ]; then expect plan-file of_a_file; else echo "skip no model file"; fi
finish
