#!/usr/bin/env bash
# kept advise: each answer with its exit code, and refusals that have codes of their own.
# shellcheck source=tests/cli/snapshot.bash
. "$(dirname "$0")/snapshot.bash"

command -v python3 >/dev/null || { echo "skip python3 is missing"; exit 77; }
python3 - "$work" <<'PY'
import json, sys
def result(path, n, rows):
    names = ["full", "full (again)"] + [r[0] for r in rows]
    scores = [lambda i: 1.0, lambda i: 1.0] + [r[1] for r in rows]
    doc = dict(schema="kept-result", version=1, kept="0", model=dict(sha256="m", asked="m.gguf", n_layers=4, n_heads=4,
        n_kv_heads=2, head_size=64, weight_bytes=1000, sliding_window=0, n_windowed_layers=0), tasks=[
        dict(label="vt()", name="vt", kind="generate", length=1024)], variants=[
        dict(name=a, canonical=a, resolved=a if v > 1 else "full", role=["reference", "floor", "strategy"][min(v, 2)])
        for v, a in enumerate(names)], samples=[])
    for i in range(n):
        doc["samples"].append(dict(task=0, index=i, hash="%x" % (i * 31 + 7), answers=["a"], n_prefix=1000, n_suffix=20,
            outcomes=[dict(variant=v, failed=False, score=float(f(i)), text="a", kl=[0.0], top1=[1])
            for v, f in enumerate(scores)]))
    json.dump(doc, open(sys.argv[1] + "/" + path, "w"))
result("a.json", 400, [("window@50%", lambda i: 1), ("window@20%", lambda i: i % 2)])
result("few.json", 8, [("window@50%", lambda i: 1)])
PY
says() { # EXIT TEXT ARGUMENT...
    local want=$1 text=$2
    shift 2
    run "$want" advise "$@" && grep -q -- "$text" "$work/out" "$work/err"
}
a=$work/a.json
expect advise-pick says 0 '^advice   window@50%' "$a" --gate -2pt
expect advise-memory says 0 '^advice   full' "$a" --memory 8GiB --gate -2pt
expect advise-none says 1 '^advice   none: no row' "$a" --memory 1MiB
expect advise-thin says 2 'kept run --model m.gguf --strategy window@50% --task vt' "$work/few.json"
expect advise-tpot says 2 'was not timed' "$a" --tpot 40ms --gate -2pt
expect advise-runner-up says 0 '^runner-up full' "$a" --gate -2pt
expect advise-gates says 0 'with --gate -0.5pt  *full' "$a" --gate -2pt
expect advise-task says 64 "did you mean 'vt'" "$a" --task vtt
expect advise-weight says 64 'NAME=WEIGHT' "$a" --task vt=-1
expect advise-preset says 65 'no task of preset few-shot' "$a" --preset few-shot
expect advise-preset-typo says 64 "did you mean 'few-shot'" "$a" --preset few-shoot
expect advise-preset-gate says 0 'at most 3 pt' "$a" --preset real-time
expect advise-gate says 64 'is no gate' "$a" --gate lots
expect advise-flag says 64 "did you mean '--memory'" "$a" --memry 1GiB
expect advise-size says 64 'wanted a size' "$a" --memory lots
expect advise-nothing says 64 'is missing'
expect advise-no-file says 65 'No such file' "$work/none.json"
json() { run 0 advise "$a" --gate -2pt --format json; python3 -c 'import json, sys; d = json.load(open(sys.argv[1])); assert d["pick"]["name"] == "window@50%" and len(d["rows"]) == 3' "$work/out"; }
expect advise-json json
finish
