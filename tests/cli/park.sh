#!/usr/bin/env bash
# kept park and kept resume: a prompt's cache goes through a file into another process, which goes on
# as one that read the prompt itself; files that are none, and other models, are refused.
# shellcheck source=tests/cli/snapshot.bash
. "$(dirname "$0")/snapshot.bash"

fails() { # fails CODE TEXT COMMAND...
    local code=$1 text=$2
    shift 2
    "$@" >"$work/out" 2>&1
    [ $? -eq "$code" ] && grep -q -- "$text" "$work/out"
}
expect park-help fails 0 'usage: kept park' "$KEPT" park --help
expect resume-help fails 0 'usage: kept resume' "$KEPT" resume --help
expect park-no-file fails 2 'needs a file' "$KEPT" park
expect park-no-out fails 2 'needs -o FILE' "$KEPT" park x.txt
expect park-other-flag fails 2 "unknown option '--text'" "$KEPT" park x.txt -o y --text z
expect park-spec fails 2 "did you mean 'park'" "$KEPT" park x.txt -o y --strategy full+prak
expect resume-no-text fails 2 'needs --text' "$KEPT" resume x
expect park-controller fails 2 'cannot be parked' "$KEPT" park x.txt -o y \
    --strategy 'adaptive(calm=full,tight=h2o)+park@50%'
[ -n "${KEPT_MODEL:-}" ] || { echo "skip no model file"; finish; }

for i in $(seq 24); do echo "Line $i says that the sky is blue and the grass is green."; done >"$work/p.txt"
text=' Line 25 says that the'
go() { # go OUT PARK-OPTIONS...
    local out=$1
    shift
    "$KEPT" park "$work/p.txt" -o "$work/p.parked" --model "$KEPT_MODEL" "$@" >"$work/row" &&
        "$KEPT" resume "$work/p.parked" --model "$KEPT_MODEL" --text "$text" --max-new 8 >"$out" 2>"$work/err"
}
exact() { go "$work/exact" && grep -q 'sky is blue' "$work/exact" && grep -q 'under full, resumed' "$work/err"; }
expect park-goes-on exact
lossy() {
    go "$work/lossy" --strategy 'full+kvtc(bits=4)' && cmp -s "$work/exact" "$work/lossy" &&
        awk '{ for (i = 1; i <= NF; i++) if ($i ~ /%$/) { ok = $i + 0 < 60 } } END { exit !ok }' "$work/row"
}
expect park-few-bits lossy
components() {
    fails 1 'kept calibrate basis' "$KEPT" park "$work/p.txt" -o "$work/q" --model "$KEPT_MODEL" \
        --strategy 'full+kvtc(basis=calibrated)' && [ ! -e "$work/q" ]
}
expect park-needs-components components
expect resume-no-parked fails 1 "no file of 'kept park'" "$KEPT" resume "$work/p.txt" --model "$KEPT_MODEL" --text x
expect resume-nothing fails 1 'cannot be read' "$KEPT" resume /nonexistent --model "$KEPT_MODEL" --text x
finish
