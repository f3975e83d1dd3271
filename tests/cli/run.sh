#!/usr/bin/env bash
# run: `kept run` as a user meets it: refusals before anything slow, and, where a model is, outputs.
set -u
kept=${KEPT:-build/kept}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
bad=0

# check NAME EXIT PATTERN ARGUMENTS...: exit code, and a line of stderr or stdout
check() {
    local name=$1 want=$2 pattern=$3 rc
    shift 3
    "$kept" run "$@" >"$dir/out" 2>"$dir/err" </dev/null
    rc=$?
    if [ $rc -eq "$want" ] && grep -q -- "$pattern" "$dir/out" "$dir/err"; then
        echo "ok $name"
    else
        echo "FAIL $name: exit $rc, wanted $want and '$pattern'"
        head -5 "$dir/err" "$dir/out"
        bad=1
    fi
}

check help 0 'usage: kept run' --help
[ "$("$kept" run --help | wc -l)" -le 26 ] || { echo "FAIL help_fits_a_screen"; bad=1; }
check no_model 2 'model NAME|FILE.gguf is missing'
check unknown_option 2 "did you mean '--strategy'" --stratgy h2o
check unknown_strategy 2 'h2o' --model x.gguf --strategy h20@20%
check unknown_task 2 "did you mean 'niah_single'" --model x.gguf --task niah_singl
check unknown_turns 2 "did you mean 'own'" --model x.gguf --turns onw
check task_without_file 2 'task qa_1 needs --squad FILE' --model x.gguf --task qa_1
check ruler_says_what_is_off 1 'off: niah_single_2 (--haystack FILE),.* qa_2 (--hotpot FILE)' \
    --model "$dir/x.gguf" --task ruler
check unknown_preset 2 "did you mean 'dialogue'" --model x.gguf --preset dialog
for p in share/presets/*; do # each one's flags are read, and a flag beside it wins
    check "preset_${p##*/}" 1 'x.gguf' --model "$dir/x.gguf" --preset "${p##*/}" --strategy h2o
done
check preset_is_overridden 2 "unknown task 'fewe'" --model x.gguf --preset few-shot --task fewe
check unknown_format 2 "did you mean 'json'" --model x.gguf --format jsn
check bad_number 2 'whole number' --model x.gguf --samples many
check bad_size 2 'pool' --model x.gguf --pool lots
check text_needs_file 2 'needs --text' --model x.gguf --task text
check pressure_wants_a_cap 2 'wants --pool' --model x.gguf --pressure 2,4
check pressure_wants_numbers 2 "from 1 to 256, got '4x'" --model x.gguf --pressure 2,4x --pool 1MiB
check pressure_alone 2 'without --study' --model x.gguf --pressure 2 --pool 1MiB --study s.db
check stop_wants_a_number 2 '--stop wants a number from 0 to 99' --model x.gguf --stop soon
check chat_and_raw 2 'exclude' --model x.gguf --chat --raw
check no_such_file 1 'x.gguf' --model "$dir/x.gguf" --strategy h2o@20%
check folder_first 1 'cannot be written' --model x.gguf --out "$dir/none/r.json"
check commas_in_options 1 'x.gguf' --model "$dir/x.gguf" --strategy 'snapkv(window=32,kernel=5)@25%,h2o@20%'

if [ -z "${KEPT_MODEL:-}" ]; then
    echo "skip runs: no model here"
    exit $bad
fi
small=(--model "$KEPT_MODEL" --strategy 'streaming,knorm+chunks' --budget 25% --length 256
    --samples 1 --chunk 64 --speed-steps 2)
check table 0 'Floor: .* exactly 0' "${small[@]}" --out "$dir/r.json"
grep -q '"schema": "kept-result"' "$dir/r.json" || { echo "FAIL out_is_json"; bad=1; }
check csv 0 '^"niah_single.*,256,0,knorm+chunks@25%,' "${small[@]}" --format csv
[ ! -s "$dir/err" ] || { echo "FAIL no_progress_in_a_pipe"; bad=1; }
[ "$(wc -l <"$dir/out")" -eq 5 ] || { echo "FAIL csv_has_a_line_per_row"; bad=1; }
check pressure 0 'lost: tokens of prompts' "${small[@]}" --pressure 2 --pool 6MiB --out "$dir/p.json"
grep -q '"schema": "kept-pressure"' "$dir/p.json" || { echo "FAIL pressure_is_json"; bad=1; }
check dump 0 'Floor' "${small[@]}" --dump-kept "$dir/kept.tsv"
tail -n 1 "$dir/kept.tsv" | grep -q 'complete' || { echo "FAIL dump_is_whole"; bad=1; }

# Ctrl-C: a valid partial result, exit 1.
"$kept" run "${small[@]}" --samples 1000 --format json >"$dir/out" 2>"$dir/err" </dev/null &
pid=$!
for _ in $(seq 100); do
    sleep 0.2
    [ "$(ps -o cputimes= -p $pid | tr -d ' ')" -ge 2 ] 2>/dev/null && break
done
kill -TERM $pid # as SIGINT, which a shell's background jobs ignore
wait $pid
rc=$?
if [ $rc -eq 1 ] && grep -q '"partial": true' "$dir/out" && grep -q 'stopped after' "$dir/err"; then
    echo "ok interrupted"
else
    echo "FAIL interrupted: exit $rc"
    head -3 "$dir/err"
    bad=1
fi
[ $bad -eq 0 ] && echo "ok outputs"
exit $bad
