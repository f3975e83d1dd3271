#!/usr/bin/env bash
# kept check: verifies on this machine, in both formats; and timings are there unless --quick.
# shellcheck source=tests/cli/snapshot.bash
. "$(dirname "$0")/snapshot.bash"

quick() {
    run 0 check --quick && grep -q '^ref  *64  ok' "$work/out" && grep -q '^ref  *128  ok' "$work/out" &&
        ! grep -q WRONG "$work/out" && ! grep -q 'GFLOP' "$work/out"
}
expect check-quick quick
whole() {
    run 0 check --format json && python3 - "$work/out" <<'PY'
import json, sys
j = json.load(open(sys.argv[1]))
assert j["ok"] and j["levels"] and j["chosen"] in [l["level"] for l in j["levels"]]
for l in j["levels"]:
    assert l["ok"] and l["error"] < 2e-5 and l["mass_error"] < 2e-3, l
    assert 0 < l["packed_error"] < 0.006 and l["widened_error"] < 5e-5, l
    assert l["decode_ns"] > 0 and l["decode_mass_ns"] > 0 and l["prefill_gflops"] > 0, l
assert j["read_bytes_per_s_1"] > 0 and j["read_bytes_per_s_all"] > 0
assert 0 <= j["huge_bytes"] <= j["pool_bytes"]
PY
}
if command -v python3 >/dev/null; then expect check-json whole; else echo "skip python3 is missing"; fi
screen() { run 0 check --quick && [ "$(wc -l <"$work/out")" -le 24 ]; }
expect check-one-screen screen
snap check-word 2 check everything
finish
