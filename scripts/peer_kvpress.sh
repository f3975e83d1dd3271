#!/usr/bin/env bash
# peer_kvpress: what 20 cells (5 methods x 4 ratios) cost in kvpress on torch, CPU, which reads every
# prompt anew for each of them, and in one `kept run`: the same file of weights, the same prompts, the
# same number of threads, one after the other, twice [--repetitions]. Not a part of `make check`: it gets 3 GB of
# Python packages (torch has no smaller wheel there) into a virtual environment of its own in the cache.
#
#   scripts/peer_kvpress.sh [--prompts N] [--tokens N] [--threads N] [--repetitions N] [--model FILE.gguf]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
BUILD=${BUILD:-build}
prompts=2 tokens=2048 threads=2 repetitions=2 model=$kept_model
usage="usage: scripts/peer_kvpress.sh [--prompts N] [--tokens N] [--threads N] [--repetitions N] [--model FILE.gguf]"
while [ $# -gt 0 ]; do
    case $1 in
    --prompts) prompts=${2:?$usage} ;;
    --tokens) tokens=${2:?$usage} ;;
    --threads) threads=${2:?$usage} ;;
    --repetitions) repetitions=${2:?$usage} ;;
    --model) model=${2:?$usage} ;;
    *) die "$usage" ;;
    esac
    shift 2
done
[ -x "$BUILD/kept" ] || die "$BUILD/kept is missing: make"
[ -s "$model" ] || die "$model is missing: $BUILD/kept pull"
[ -s "$kept_text" ] || die "$kept_text is missing: scripts/setup.sh text"

# Pinned: what the figures in docs/study.md were measured with.
packages=(torch==2.8.0 transformers==4.57.1 kvpress==0.5.5 gguf==0.19.0)
home=$kept_cache/peers/kvpress-0.5.5
if [ ! -d "$home" ]; then
    lock peers
    say "getting ${packages[*]} (3 GB, 7 unpacked), half an hour at worst"
    mkdir -p "${home%/*}"
    python3 -m venv "$home.new"
    "$home.new/bin/python" -m pip -q --no-input --disable-pip-version-check install --no-cache-dir \
        --only-binary :all: --no-binary fire "${packages[@]}" || die "could not get them with pip"
    mv "$home.new" "$home"
fi
python=$home/bin/python
side=bench/peers/kvpress_cells.py
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# On a busy machine a thread that waits must not spin: it would count as work.
export OMP_NUM_THREADS=$threads MKL_NUM_THREADS=$threads OMP_WAIT_POLICY=passive TOKENIZERS_PARALLELISM=false

"$python" $side prompts "$model" "$kept_text" "$prompts" "$tokens" >"$work/prompts.jsonl"
for ((i = 1; i <= repetitions; i++)); do
    say "repetition $i: kvpress"
    "$python" $side run "$model" "$work/prompts.jsonl" "$threads" >"$work/theirs-$i.json"
    say "repetition $i: kept"
    "$python" $side time "$work/kept-$i.json" "$BUILD/kept" run --model "$model" --jsonl "$work/prompts.jsonl" \
        --samples "$prompts" --raw --quiet --strategy snapkv,tova,knorm,streaming,expected-attention \
        --budget 75%,50%,25%,12.5% --threads "$threads" --speed-samples 0 --out "$work/kept-$i.json"
done
sed -n 's/^model name[^:]*: /cpu     /p;T;q' /proc/cpuinfo
echo "load    $(cut -d' ' -f1 /proc/loadavg) at the end, $(nproc) cores"
"$python" $side compare "$work"/theirs-*.json -- "$work"/kept-*.json
