#!/usr/bin/env bash
# Bad input: one line that says what to do, exit 2 for usage and 1 for failures, nothing on stdout.
# shellcheck source=tests/cli/snapshot.bash
. "$(dirname "$0")/snapshot.bash"

snap error-command 2 plam
snap error-command-far 2 xyzzyxyzzy
snap error-flag 2 plan --contxt 4K
snap error-short-flag 2 plan -x
snap error-flag-value 2 plan --context
snap error-flag-no-value 2 check --quick=yes
snap error-format 2 plan --model llama-2-70b --format xml
snap error-plan-nothing 2 plan
snap error-plan-model 2 plan --model llama-2-70
snap error-plan-model-far 2 plan --model /nonexistent/model.gguf
snap error-plan-both 2 plan --model llama-2-70b --layers 3
snap error-plan-context 2 plan --model llama-2-70b --context 4K,,8K
snap error-plan-context-byte 2 plan --model llama-2-70b --context 4KB
snap error-plan-context-zero 2 plan --model llama-2-70b --context 0
snap error-plan-contexts 2 plan --model llama-2-70b --context 1,2,3,4,5,6,7,8,9
snap error-plan-batch 2 plan --model llama-2-70b --batch 0
snap error-plan-batch-text 2 plan --model llama-2-70b --batch ' 7'
snap error-plan-heads 2 plan --layers 2 --heads 6 --kv-heads 4 --head-size 64
snap error-plan-memory 2 plan --model llama-2-70b --memory much
snap error-plan-huge 2 plan --layers 256 --heads 1024 --head-size 1024 --context 1000M --batch 1000000
snap error-plan-word 2 plan llama-2-70b
snap error-help-two 2 help plan ls
snap error-help-command 2 help plam
snap error-version-word 2 version 2
quiet() { # every usage error leaves stdout empty
    run 2 plan --contxt && [ ! -s "$work/out" ] && run 2 && [ ! -s "$work/out" ] && run 2 show nope@20% &&
        [ ! -s "$work/out" ]
}
expect error-stdout-empty quiet
bad_spec() { # message, spec and caret, exit 2; the wording belongs to the parser
    run 2 show 'h2p@20%' && grep -q 'h2o' "$work/err" && grep -q '^ *^$' "$work/err" &&
        run 2 plan --model llama-2-70b --strategy 'h2p@20%' && grep -q 'h2o' "$work/err"
}
expect error-spec bad_spec
damaged_file() {
    printf 'GGUF\003\000\000\000 not a model' >"$work/bad.gguf"
    run 1 plan --model "$work/bad.gguf" && [ "$(wc -l <"$work/err")" -eq 1 ] && [ ! -s "$work/out" ]
}
expect error-damaged-file damaged_file
full_disk() {
    local rc
    for c in "ls" "plan --model llama-2-70b" "--help" "check --quick" "version"; do
        # shellcheck disable=SC2086  # words
        "$KEPT" $c >/dev/full 2>"$work/err" && return 1
        rc=$?
        [ $rc -eq 1 ] && [ "$(wc -l <"$work/err")" -eq 1 ] || return 1
    done
}
if [ -c /dev/full ]; then expect error-full-disk full_disk; else echo "skip /dev/full is missing"; fi
finish
