#!/usr/bin/env bash
# standing: the standing study. Strategies of every family at 4 budgets on 4 access patterns, one
# needle, and text, at three lengths, for each model named; a study file a model in
# $BUILD/standing. A run that was stopped goes on where it was. Hours on 2 cores.
#
#   scripts/standing.sh [--samples N] [--lengths N,...] [--jobs N] [--threads N] [--out DIR] [MODEL...]
#   scripts/standing.sh --tables yes [--out DIR] [MODEL...]    docs/results from the studies of DIR
#
# --samples of every task at the first length [8], half as many at each further one. --jobs processes
# [one a core] of --threads [1] work on one study: short answers of many rows keep threads waiting.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
BUILD=${BUILD:-build}
kept=$BUILD/kept out=$BUILD/standing samples=8 lengths=2048,4096,7680 jobs=$(nproc) threads=1 tables='' models=()
usage="usage: scripts/standing.sh [--samples N] [--lengths N,...] [--jobs N] [--threads N] [--tables yes] [--out DIR] [MODEL...]"
while [ $# -gt 0 ]; do
    case $1 in
    --samples) samples=${2:?$usage} ;;
    --lengths) lengths=${2:?$usage} ;;
    --jobs) jobs=${2:?$usage} ;;
    --threads) threads=${2:?$usage} ;;
    --tables) tables=${2:?$usage} ;;
    --out) out=${2:?$usage} ;;
    -*) die "$usage" ;;
    *)
        models+=("$1")
        shift
        continue
        ;;
    esac
    shift 2
done
[ ${#models[@]} -gt 0 ] || models=(smollm2-135m qwen2.5-coder-0.5b qwen2.5-coder-1.5b)

# What a budget is given to, by family; then what has a size of its own.
strategies=streaming,random
strategies=$strategies,h2o,tova,snapkv,expected-attention,keydiff,chunkkv
strategies=$strategies,pyramidkv,adakv
strategies=$strategies,snapkv+k4v3,expected-attention+k4v3
strategies=$strategies,recursive
strategies=$strategies,full+q8,full+rot4,full+k4v3,full+kivi2
budgets=50%,25%,12.5%,6.25%
tasks=facts_sequential,facts_hotspot,facts_random,facts_update

# one MODEL LENGTH SAMPLES: patterns and text, then the needle, in which there is only one
one() {
    local both=(run --study "$out/$1.db" --model "$1" --length "$2" --samples "$3" --quiet
        --strategy "$strategies" --budget "$budgets" --threads "$threads" --speed-samples 0)
    local facts=(--task "$tasks" --keys 8 --queries 4)
    [ ! -s "$kept_text" ] || facts+=(--text "$kept_text" --score-tokens 48)
    "$kept" "${both[@]}" "${facts[@]}" && "$kept" "${both[@]}" --task niah_single_1
}

# worker MODEL: what is left at every length
worker() {
    local n=$samples length
    for length in ${lengths//,/ }; do
        one "$1" "$length" "$n" || return 1
        n=$(((n + 1) / 2))
    done
}

# study MODEL: the processes share the samples
study() {
    local pids=() i failed=0
    for ((i = 1; i <= jobs; i++)); do
        worker "$1" >"$out/job-$1-$i.txt" 2>&1 &
        pids+=($!)
        [ "$i" -gt 1 ] || sleep 2 # the file is made by one
    done
    for i in "${pids[@]}"; do wait "$i" || failed=1; done
    [ $failed = 0 ] || die "$1: a process failed; run it again to go on ($out/job-$1-*.txt)"
    rm -f "$out/job-$1-"*.txt
}

# table CSV LENGTH: one line a strategy: over the patterns its mean score, then needle and text, by
# budget
table() {
    awk -v length_wanted="$2" "$kept_split_csv"'
    function show(name, b,   key) {
        key = name SUBSEP b
        return sprintf(" %.1f | %s | %s | %s |", held[key], \
            n_facts[key] ? sprintf("%.0f (%.0f-%.0f)", 100 * facts[key] / n_facts[key], \
                100 * low[key] / n_facts[key], 100 * high[key] / n_facts[key]) : "-", needle[key], text[key])
    }
    NR == 1 { split_csv($0); for (i in f) at[f[i]] = i; next }
    {
        split_csv($0)
        if (f[at["n"]] == 0 || f[at["length"]] != length_wanted) next
        name = f[at["strategy"]]; b = "-"
        if (name ~ /@/) { b = name; sub(/.*@/, "", b); sub(/@.*/, "", name) }
        key = name SUBSEP b
        if (!(key in held)) cells[++n_cells] = key
        held[key] = f[at["held_pct"]]
        if (needle[key] == "") needle[key] = "-"
        if (text[key] == "") text[key] = "-"
        if (f[at["task"]] ~ /^facts/) {
            facts[key] += f[at["score"]]; n_facts[key]++
            low[key] += f[at["score_low"]]; high[key] += f[at["score_high"]]
        } else if (f[at["task"]] ~ /^niah/)
            needle[key] = sprintf("%.0f (%.0f-%.0f)", 100 * f[at["score"]], 100 * f[at["score_low"]], 100 * f[at["score_high"]])
        else
            text[key] = sprintf("%+.3f (%+.3f to %+.3f)", f[at["change"]], f[at["change_low"]], f[at["change_high"]])
    }
    END {
        print "| strategy | budget | bytes held, % | facts | needle | text, nats |"
        print "|---|---|---|---|---|---|"
        for (i = 1; i <= n_cells; i++) {
            split(cells[i], part, SUBSEP)
            printf "| %s | %s |%s\n", part[1], part[2], show(part[1], part[2])
        }
    }' "$1"
}

# One file a model: what was run, then a table for each length.
results() {
    local m setting length doc
    mkdir -p docs/results
    for m in "${models[@]}"; do
        [ -s "$out/$m.db" ] || continue
        doc=docs/results/$m.md
        {
            echo "# $m"
            echo
            echo "Made by \`scripts/standing.sh --tables yes\`; [what the columns are](README.md)."
        } >"$doc"
        "$kept" study ls "$out/$m.db" | sed -n 's/^setting \([0-9]*\) .*/\1/p' | while read -r setting; do
            "$kept" study export "$out/$m.db" --format csv --setting "$setting" --out "$out/table.csv"
            "$kept" study show "$out/$m.db" --setting "$setting" >"$out/table.txt"
            for length in $(sed -n 's/^"[^"]*",\([0-9]*\),.*/\1/p' "$out/table.csv" | sort -nu); do
                grep -q "^[a-z].*: [1-9][0-9]* samples of $length tokens" "$out/table.txt" || continue
                {
                    echo
                    echo "## $length tokens"
                    echo
                    sed -n 's/^model  */- model: /p; s/^machine  */- machine: /p; s/^run  */- run: /p' "$out/table.txt"
                    sed -n "s/^\([a-z_0-9]*(.*samples of $length tokens.*\)\$/- \1/p" "$out/table.txt"
                    echo
                    table "$out/table.csv" "$length"
                } >>"$doc"
            done
        done
        say "wrote $doc"
    done
}

if [ -n "$tables" ]; then
    results
    exit 0
fi
mkdir -p "$out"
for m in "${models[@]}"; do
    "$kept" pull "$m" >/dev/null
    start=$SECONDS
    study "$m"
    say "$m: $((SECONDS - start)) s"
done
