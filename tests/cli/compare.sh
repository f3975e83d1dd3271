#!/usr/bin/env bash
# kept compare: each verdict with its exit code, on results made here, and refusals that have codes of
# their own so that no script takes a typing error for a verdict.
# shellcheck source=tests/cli/snapshot.bash
. "$(dirname "$0")/snapshot.bash"

command -v python3 >/dev/null || { echo "skip python3 is missing"; exit 77; }
python3 - "$work" <<'PY'
import json, sys
def result(path, n, rows, change=0):
    roles = ["reference", "floor"] + ["strategy"] * len(rows)
    names = ["full", "full (again)"] + [r[0] for r in rows]
    scores = [lambda i: 1.0, lambda i: 1.0] + [r[1] for r in rows]
    doc = dict(schema="kept-result", version=1, kept="0", model=dict(sha256="m"), tasks=[
        dict(label="t", kind="generate", length=512)], variants=[
        dict(name=a, canonical=a, resolved=a, role=b) for a, b in zip(names, roles)], samples=[])
    for i in range(n):
        doc["samples"].append(dict(task=0, index=i, hash="%x" % (i * 31 + 7 + change * (i == 3)), answers=["a"], outcomes=[
            dict(variant=v, failed=False, score=float(f(i)), text="line\x1b[31m" if f(i) < 1 else "a", kl=[0.0], top1=[1])
            for v, f in enumerate(scores)]))
    json.dump(doc, open(sys.argv[1] + "/" + path, "w"))
rows = [("good@50%", lambda i: 1), ("bad@50%", lambda i: i % 2), ("so-so@50%", lambda i: i % 40 != 5)]
result("a.json", 300, rows)
result("b.json", 300, rows, change=1)
result("few.json", 8, rows)
result("only-good.json", 300, rows[:1])
result("base.json", 300, rows)
result("same.json", 300, rows)
result("worse.json", 300, [("good@50%", lambda i: i % 3 > 0)] + rows[1:])
PY
says() { # EXIT TEXT ARGUMENT...
    local want=$1 text=$2
    shift 2
    run "$want" compare "$@" && grep -q -- "$text" "$work/out" "$work/err"
}
a=$work/a.json
expect compare-pass says 0 'verdict  non-inferior' "$work/only-good.json" --margin 2
expect compare-fail says 1 'verdict  worse' "$a" --margin 2
expect compare-fail-row says 1 'verdict  worse' "$a" 'bad@50%' --margin 2
expect compare-row says 0 'non-inferior' "$a" 'good@50%' --margin 2pt
expect compare-open says 2 'more samples' "$work/few.json" 'good@50%'
expect compare-rows says 0 'verdict  non-inferior' "$a" 'bad@50%' 'good@50%' --margin 1%
expect compare-files says 0 "Kendall's tau 1.00" "$a" "$a" --margin 5
expect compare-unpaired says 65 'one result only' "$a" "$work/b.json"
expect compare-common says 0 'verdict' "$a" "$work/b.json" --common --margin 5
expect compare-flips says 1 'sample 0 .*lost *"a" -> "line ' "$a" 'bad@50%'
expect compare-guarantee says 2 'bad on t: none' "$a" --guarantee 5
expect compare-nothing says 64 'is missing'
expect compare-flag says 64 "did you mean '--margin'" "$a" --margn 1
expect compare-number says 64 'wants a number' "$a" --margin lots
expect compare-several-rows says 1 'worse *bad@50%' "$a" 'good@50%' 'so-so@50%' 'bad@50%' --margin 5 --flips 0
expect compare-several-pass says 0 'verdict  non-inferior' "$a" 'bad@50%' 'good@50%' 'so-so@50%' --margin 5
expect compare-several-typo says 65 "did you mean 'good@50%'" "$a" 'bad@50%' 'good@50%' 'god@50%'
expect compare-several-files says 1 'worse.json: t, against' "$work/base.json" "$work/same.json" "$work/worse.json" --margin 5
expect compare-several-files-pass says 0 "after    $work/same.json" "$work/base.json" "$work/same.json" "$work/base.json" --margin 5
expect compare-several-one-missing says 65 'No such file' "$a" "$a" "$work/none.json"
family() { # three files of four rows each are one family of eight verdicts
    run 1 compare "$work/base.json" "$work/same.json" "$work/worse.json" --margin 5 --format json
    python3 - "$work/out" <<'PY'
import json, sys
d = json.load(open(sys.argv[1]))
assert [r["after"][-9:] for r in d["results"]] == ["same.json", "orse.json"] and d["after"] is None, d["results"]
assert [(r["result"], r["after"]) for r in d["rows"]] == [(k, n) for k in (0, 1) for n in ("full", "good@50%", "bad@50%", "so-so@50%")]
assert d["verdict"] == "worse" and [r["verdict"] for r in d["rows"] if r["result"] == 0] == ["non-inferior"] * 4
p = sorted(r["p_inferior"] for r in d["rows"])
holm, last = {}, 0
for i, x in enumerate(p):
    last = holm[x] = max(last, min(1, x * (len(p) - i)))
assert all(abs(r["p_inferior_holm"] - holm[r["p_inferior"]]) < 1e-12 for r in d["rows"])
PY
}
expect compare-several-family family
words() { says 64 'unexpected argument' "$a" x{1..40}; }
expect compare-words words
expect compare-no-file says 65 'No such file' "$work/none.json"
expect compare-no-result says 65 'README.md' README.md
expect compare-row-typo says 65 "did you mean 'good@50%'" "$a" 'god@50%'
escapes() { ! grep -q "$(printf '\033')" "$work/out"; }
run 1 compare "$a" 'bad@50%' && expect compare-no-escapes escapes
json() { run 1 compare "$a" --format json; python3 -c 'import json, sys; d = json.load(open(sys.argv[1])); assert d["verdict"] == "worse" and len(d["rows"]) == 3' "$work/out"; }
expect compare-json json
finish
