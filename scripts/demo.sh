#!/usr/bin/env bash
# demo: the main job on the default model: 11 strategies at two budgets beside the full cache, on a
# needle task and on running text. Arguments replace the defaults (any option of kept run).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
kept=${BUILD:-build}/kept
[ -s "$kept_model" ] || die "the default model is not here; run make setup"
tasks=(--task niah_single)
if [ -s "$kept_text" ]; then
    tasks+=(--text "$kept_text")
else
    echo "demo: no text ($kept_text): the needle task only" >&2
fi
strategies=random,window,streaming,knorm,keydiff,h2o,tova,snapkv,adakv,pyramidkv
strategies+=,expected-attention
"$kept" run --model $kept_default_model --strategy $strategies --budget 50%,20% "${tasks[@]}" \
    --length 2048 --samples 8 --score-tokens 48 "$@"
cat <<END

next
  $kept run --model $kept_default_model --strategy 'snapkv(window=64)+ada,h2o' --budget 30% --task niah_multikey
      other strategies, budgets, tasks; your own prompts with --jsonl FILE, any model with --model FILE.gguf
  $kept show snapkv
      what a strategy does, its options and paper; $kept ls lists all of them
  $kept plan --model llama-2-70b --context 4K,128K --strategy 'snapkv@20%' --memory 80GB
      the memory it takes, and what fits, before you run
END
