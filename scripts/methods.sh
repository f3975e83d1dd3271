#!/usr/bin/env bash
# methods: measures every score, wrapper and allocator at two budgets on the demo's tasks with the
# default model, and rewrites the table "Measured" of docs/strategies.md from that run.
#
#   scripts/methods.sh [--samples N] [--length N] [--threads N] [--table CSV]
#
# Scores stand alone, wrappers and allocators on snapkv. What needs a trained file gets one first
# (minutes, kept in the cache). The text that is scored is the part that training never saw.
# --table only rewrites the table, from the CSV of an earlier run ($BUILD/methods/result.csv).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
BUILD=${BUILD:-build}
kept=$BUILD/kept out=$BUILD/methods samples=8 length=2048 csv='' threads=0
while [ $# -gt 0 ]; do
    case $1 in
    --samples) samples=$2 ;;
    --length) length=$2 ;;
    --table) csv=$2 ;;
    --threads) threads=$2 ;;
    *) die "usage: scripts/methods.sh [--samples N] [--length N] [--threads N] [--table CSV]" ;;
    esac
    shift 2
done
doc=docs/strategies.md
mkdir -p "$out"

# names AXIS: the registry's parts of an axis, one per line
names() { "$BUILD/tests/test_spec" --rows | awk -F' [|] ' -v axis="$1" '$2 == axis { gsub(/[|` ]/, "", $1); print $1 }'; }

measure() {
    local list kind text=() start=$SECONDS
    [ -s "$kept_model" ] || die "the default model is not here; run make setup"
    list=$({
        names score | grep -vxE 'full|oracle'
        names wrapper | grep -vx tokens | sed 's/^/snapkv+/'
        names allocator | grep -vx uniform | sed 's/^/snapkv+/'
    } | paste -sd,)
    for kind in calibrate train; do # what is there already takes a second
        "$kept" $kind all "$kept_default_model" >"$out/$kind.txt" 2>&1 ||
            say "$kind: $(tail -n 1 "$out/$kind.txt")"
    done
    if [ -s "$kept_text" ]; then
        # any kind writes the same held-out part: blocks are chosen by their own hash
        "$kept" calibrate qfilters "$kept_default_model" --held-out "$out/held-out.txt" \
            --tokens 2048 -o "$out/ignored.kept" --quiet >/dev/null
        text=(--text "$out/held-out.txt")
    fi
    say "training and calibration: $((SECONDS - start)) s"
    start=$SECONDS
    "$kept" run --model "$kept_default_model" --strategy "$list" --budget 25%,12.5% \
        --task niah_single "${text[@]}" --length "$length" --samples "$samples" --score-tokens 48 \
        --threads "$threads" --speed-samples 0 --out "$out/result.csv" >"$out/result.txt"
    say "$(echo "$list" | tr ',' '\n' | wc -l) methods at 2 budgets, $samples samples: $((SECONDS - start)) s"
    csv=$out/result.csv
}
[ -n "$csv" ] || measure
[ -s "$csv" ] || die "$csv: not there"

# One line a method from the lines of its cells.
rows=$(mktemp)
trap 'rm -f "$rows" "$rows.doc"' EXIT
awk "$kept_split_csv"'
    function interval(score, low, high) { return sprintf("%.0f (%.0f-%.0f)", 100 * score, 100 * low, 100 * high) }
    NR == 1 { n = split_csv($0); for (i = 1; i <= n; i++) at[f[i]] = i; next }
    {
        split_csv($0)
        spec = f[at["strategy"]]
        if (spec !~ /@/) next
        name = spec; sub(/@.*/, "", name)
        budget = spec; sub(/.*@/, "", budget)
        if (!(name in seen)) { seen[name] = 1; order[++count] = name }
        key = name SUBSEP budget
        if (f[at["nll"]] == "") {
            score[key] = interval(f[at["score"]], f[at["score_low"]], f[at["score_high"]])
            held[key] = sprintf("%.1f", f[at["held_pct"]])
            if (f[at["prefill_ns"]] > 0)
                time[name] = sprintf("%.1f", 100 * (f[at["score_ns"]] + f[at["compact_ns"]]) / f[at["prefill_ns"]])
        } else
            text[key] = sprintf("%+.3f (%+.3f to %+.3f)", f[at["change"]], f[at["change_low"]], f[at["change_high"]])
    }
    END {
        print "| method | time, % of prefill | held at 25 % | needle at 25 % | text at 25 % | held at 12.5 % | needle at 12.5 % | text at 12.5 % |"
        print "|---|---|---|---|---|---|---|---|"
        for (i = 1; i <= count; i++) {
            a = order[i] SUBSEP "25%"; b = order[i] SUBSEP "12.5%"
            printf "| %s | %s | %s | %s | %s | %s | %s | %s |\n", order[i], time[order[i]], held[a], score[a], text[a], held[b], score[b], text[b]
        }
    }' "$csv" >"$rows"

awk -v rows="$rows" '
    /^<!-- measured/ { print; while ((getline line < rows) > 0) print line; skip = 1; next }
    /^<!-- end of measured/ { skip = 0 }
    !skip { print }' "$doc" >"$rows.doc"
cmp -s "$rows.doc" "$doc" || cp "$rows.doc" "$doc"
say "rewrote the table of measurements in $doc"
