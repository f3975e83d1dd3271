#!/usr/bin/env bash
# kept power and kept selftest on the command line: what is printed and what is refused. The selftest's
# judgement is tested on documents in test_compare; `kept selftest` itself runs a real model.
# shellcheck source=tests/cli/snapshot.bash
. "$(dirname "$0")/snapshot.bash"

snap power-table 0 power --samples 500
snap power-list 2 power --margin 1,x
snap power-flag 2 power --margni 1
snap selftest-number 2 selftest --samples 2
snap selftest-word 2 selftest smollm2
no_model() { run 1 selftest --model "$work/none.gguf" && [ "$(wc -l <"$work/err")" -eq 1 ]; }
expect selftest-no-model no_model
finish
