#!/usr/bin/env bash
# kept study: a study of two samples, made by schema 1, is brought up to date, listed, exported in every
# format, and taken in again; what other programs read from the exports is recomputed here.
# shellcheck source=tests/cli/snapshot.bash
. "$(dirname "$0")/snapshot.bash"

db=$work/s.db
cp tests/data/study-schema-1.db "$db"
says() { # EXIT TEXT ARGUMENT...: one line on stderr with this text
    local want=$1 text=$2
    shift 2
    run "$want" study "$@" && grep -q -- "$text" "$work/err" && [ "$(grep -vc '^Try ' "$work/err")" -eq 1 ]
}
expect study-usage says 2 'what to do is missing'
expect study-action says 2 "did you mean 'export'" exprt x
expect study-format says 2 "did you mean 'jsonl'" export "$db" --format jsonll
expect study-folder says 2 'out FOLDER' export "$db" --format lm-eval
expect study-none says 1 'No such file' ls "$work/none.db"
expect study-no-study says 1 'not a study' ls README.md
expect study-old says 1 'brings it up to date' ls "$db"
expect study-check run 0 study check "$db"
expect study-setting says 2 'no such setting' export "$db" --setting 7
lists() { run 0 study ls "$db" && grep -q 'jsonl.* 2 samples' "$work/out" && grep -q 'knorm@60%' "$work/out"; }
expect study-ls lists
expect study-json run 0 study export "$db" --out "$work/r.json"
expect study-csv run 0 study export "$db" --format csv --out "$work/r.csv"
expect study-jsonl run 0 study export "$db" --format jsonl --out "$work/r.jsonl"
expect study-lm-eval run 0 study export "$db" --format lm-eval --out "$work/lm"
takes_in() {
    run 0 study import "$work/new.db" "$work/r.json" && grep -q ' 6 outcomes' "$work/out" &&
        run 0 study import "$work/new.db" "$work/r.json" && grep -q ' 0 outcomes' "$work/out"
}
expect study-import takes_in
shows() { run 0 study show "$db" --columns paths && grep -q '^  full  *100.0 ' "$work/out"; }
expect study-show run 0 study show "$db"
expect study-columns shows
view() { run 0 study show "$db" --columns "$1" && grep -q "$2" "$work/out"; }
expect study-models view models 'no task was run on two models'
expect study-precision view precision 'as f16 and packed'
expect study-columns-typo says 2 "did you mean 'paths'" show "$db" --columns path
doctored() {
    sed '0,/"score": 0.0/s//"score": 1.0/' "$work/r.json" >"$work/bad.json" && ! cmp -s "$work/r.json" "$work/bad.json" &&
        says 1 'changed by hand' import "$work/new.db" "$work/bad.json"
}
expect study-doctored doctored
command -v python3 >/dev/null || { echo "skip python3 is missing"; finish; }
others_read() {
    PYTHONPATH=${KEPT_READERS:-} python3 - "$work" <<'PY'
import csv, glob, json, math, re, sys
work = sys.argv[1]
doc = json.load(open(work + "/r.json"))
lines = [json.loads(x) for x in open(work + "/r.jsonl")]
rows = list(csv.DictReader(open(work + "/r.csv")))
assert len(lines) == 6 and len(rows) == 3 and len(doc["samples"]) == 2
for v, row in zip(doc["variants"], rows):
    scores = [x["score"] for x in lines if x["strategy"] == v["name"]]
    assert abs(sum(scores) / 2 - float(row["score"])) < 1e-12, (v, scores)
    mine = [x["tokens"] for x in lines if x["strategy"] == v["name"]]
    full = [x["tokens"] for x in lines if x["strategy"] == doc["variants"][0]["name"]]
    ratio = sum(map(len, mine)) / sum(map(len, full))
    assert abs(ratio - float(row["trajectory.length_ratio"])) < 1e-12, (v, ratio)
folders = glob.glob(work + "/lm/*")
assert len(folders) == 3, folders
for folder in folders:
    results = json.load(open(glob.glob(folder + "/results_*.json")[0]))
    (task, r), = results["results"].items()
    samples = [json.loads(x) for x in open(glob.glob(folder + "/samples_*.jsonl")[0])]
    x = [s["exact_match"] for s in samples]
    mean = sum(x) / len(x)
    sd = math.sqrt(sum((y - mean) ** 2 for y in x) / (len(x) - 1))
    assert abs(r["exact_match,none"] - mean) < 1e-12
    assert abs(r["exact_match_stderr,none"] - sd / math.sqrt(len(x))) < 1e-12
    assert results["n-samples"][task] == {"original": 2, "effective": 2}
    assert results["higher_is_better"][task] == {"exact_match": True}
    for s in samples:
        assert isinstance(s["resps"][0][0], str) and s["filtered_resps"][0] == s["resps"][0][0]
        assert {"doc_id", "doc", "target", "arguments", "doc_hash", "prompt_hash", "target_hash"} <= set(s)
try:
    import pandas
except ImportError:
    print("skip pandas is not here")
else:
    frame = pandas.read_json(work + "/r.jsonl", lines=True)
    assert frame.groupby("strategy").score.mean().shape == (3,)
    for x in glob.glob(work + "/lm/*/samples_*.jsonl"):
        frame = pandas.read_json(x, lines=True)
        assert len(frame) == 2 and frame.exact_match.between(0, 1).all()
try:
    import lm_eval.utils as harness
except ImportError:
    print("skip lm-eval is not here")
else:
    for folder in folders:
        names = glob.glob(folder + "/*")
        name = harness.get_latest_filename(harness.get_results_filenames(names))
        results = json.load(open(name))
        (task, r), = results["results"].items()
        sample, = harness.get_sample_results_filenames(names)
        found = harness.get_file_task_name(sample.split("/")[-1])
        assert re.sub(r"\W|_", "", found) == re.sub(r"\W|_", "", task), (found, task) # a file's name is not the label
        table = harness.make_table(results)
        cells = [x.strip() for x in table.splitlines()[2].split("|")]
        assert cells[1] == task and cells[5] == "exact_match", table
        assert abs(float(cells[7]) - r["exact_match,none"]) < 1e-4, table
PY
}
others_read >"$work/py" 2>&1
status=$?
cat "$work/py"
verdict study-others-read $status
finish
