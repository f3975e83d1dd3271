#!/usr/bin/env bash
# train: `kept train` and `kept calibrate` as a user meets them: help, and what is refused before
# anything slow.
# shellcheck source=tests/cli/snapshot.bash
. "$(dirname "$0")/snapshot.bash"

export KEPT_CACHE=$work/cache # nothing of the user's own
snap help-train 0 train --help
snap help-calibrate 0 calibrate --help
snap error-train-nothing 2 train
snap error-train-kind 2 train kvsap
snap error-train-kind-far 2 train xyzzyxyzzy
snap error-calibrate-kind 2 calibrate headvk
snap error-train-other-verb 2 train duo
snap error-calibrate-other-verb 2 calibrate ranker
snap error-train-flag 2 train kvzap --tpye mlp
snap error-train-words 2 train kvzap smollm2-135m more
snap error-train-tokens 2 train kvzap --tokens few
snap error-train-tokens-few 2 train kvzap --tokens 10
snap error-calibrate-type 2 calibrate duo --type mlp
snap error-calibrate-text 2 calibrate headkv --text x.txt
snap error-train-all-out 2 train all --out x.kept
snap error-train-model 1 train ranker smollm2-135m
no_model_file() { run 1 train ranker "$work/none.gguf" --text "$0" -o "$work/x.kept" && one_line; }
one_line() { [ "$(wc -l <"$work/err")" -eq 1 ] && [ ! -s "$work/out" ]; }
expect error-train-model-file no_model_file

if [ -z "${KEPT_MODEL:-}" ]; then
    echo "skip the default model is not here"
    finish
fi
says() { # EXIT PATTERN ARGUMENT...: one line that says PATTERN, nothing on stdout, no file made
    local want=$1 pattern=$2
    shift 2
    run "$want" "$@" --quiet && one_line && grep -q -e "$pattern" "$work/err" && [ ! -e "$work/x.kept" ] ||
        { cat "$work/err"; return 1; }
}
seq 1 12000 >"$work/short.txt"
seq 1 9 >"$work/tiny.txt"
head -c 5000 /dev/zero | tr '\0' '\377' >"$work/binary.txt"
m=$KEPT_MODEL
expect text-too-short says 2 'too short' train kvzap "$m" --text "$work/tiny.txt" -o "$work/x.kept"
expect text-too-few says 2 'documents of' train kvzap "$m" --tokens 400000 --text "$work/short.txt" -o "$work/x.kept"
expect text-missing says 1 'none.txt' train kvzap "$m" --text "$work/none.txt" -o "$work/x.kept"
expect text-not-here says 1 'make setup' train kvzap "$m" -o "$work/x.kept"
expect text-not-utf8 says 1 'UTF-8' train kvzap "$m" --text "$work/binary.txt" -o "$work/x.kept"
expect type-unknown says 2 'it has linear and mlp' train kvzap "$m" --type cubic --text "$work/short.txt" -o "$work/x.kept"
expect type-of-ranker says 2 'no variants' train ranker "$m" --type mlp --text "$work/short.txt" -o "$work/x.kept"
expect out-folder-missing says 1 'cannot be written' train kvzap "$m" --text "$work/short.txt" -o "$work/none/x.kept"
expect held-out-folder says 1 'cannot write' train kvzap "$m" --text "$work/short.txt" --held-out "$work/none/x.txt" -o "$work/x.kept"
touch "$work/cache"
expect cache-is-a-file says 1 'cannot be made' train kvzap "$m" --text "$work/short.txt"
needs() { # what is missing is said before anything is read, with the command that makes it
    rm -f "$work/cache"
    run 2 run --model "$m" --strategy "$1" --budget 25% --length 256 --samples 1 && grep -q -e "$2" "$work/err" ||
        run 1 run --model "$m" --strategy "$1" --budget 25% --length 256 --samples 1 && grep -q -e "$2" "$work/err"
}
expect run-needs-duo needs duo-attention 'kept calibrate duo'
expect run-needs-ranker needs ranker 'kept train ranker'
expect run-needs-kvzap needs kvzap 'kept train kvzap'
finish
