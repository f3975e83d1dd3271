#!/usr/bin/env bash
# kept report: usage errors, a page of a small study, and no page where something fails.
# shellcheck source=tests/cli/snapshot.bash
. "$(dirname "$0")/snapshot.bash"

says() { # EXIT TEXT ARGUMENT...: one line on stderr with this text, and no page
    local want=$1 text=$2
    shift 2
    run "$want" report "$@" && grep -q -- "$text" "$work/err" && [ "$(grep -vc '^Try ' "$work/err")" -eq 1 ]
}
expect report-usage says 2 "study's FILE is missing"
expect report-flag says 2 "did you mean '--margin'" --margn 2 x
expect report-number says 2 'wants a number from 0 to 100' x --margin many
expect report-word says 2 "unexpected argument 'y'" x y
db=$work/s.db page=$work/p.html
cp tests/data/study-schema-1.db "$db"
"$KEPT" study check "$db" >/dev/null
if "$KEPT" report "$db" -o "$page" 2>"$work/err" >"$work/out"; then
    expect report-small [ "$(wc -c <"$page")" -lt 3000000 ]
else
    grep -q 'without the script that draws plots' "$work/err" || cat "$work/err"
    expect report-without-plots [ "$(wc -l <"$work/err")" -eq 1 ]
    echo "skip this kept was built without the script that draws plots"
    finish
fi
expect report-none says 1 'No such file' "$work/none.db" -o "$work/none.html"
nothing_left() { ! [ -e "$1" ] && [ -z "$(find "$work" -name '*.tmp')" ]; }
no_folder() { says 1 'No such file' "$db" -o "$work/nowhere/p.html" && nothing_left "$work/nowhere/p.html"; }
expect report-no-folder no_folder
onto_folder() { mkdir "$work/d" && says 1 'Is a directory' "$db" -o "$work/d" && [ -d "$work/d" ] && nothing_left "$work/d/x"; }
expect report-onto-folder onto_folder
whole() { grep -q '^</html>' "$page" && grep -q 'id="verdict"' "$page" && ! grep -q '@@[a-z]*@@' "$page"; }
expect report-whole whole
same_verdicts() { # as many of each kind as kept compare prints
    local kind class
    "$KEPT" compare "$db" --common >"$work/verdicts"
    for kind in non-inferior:good worse:bad inconclusive:open; do
        class=${kind#*:}
        [ "$(grep -c "^  ${kind%:*} " "$work/verdicts")" -eq "$(grep -o "<td class=\"$class\">" "$page" | wc -l)" ] || return 1
    done
    grep -q '<td class="open">' "$page"
}
expect report-verdicts same_verdicts
of_a_result() { # a result makes the same rows; what is in the page is a result again, without folders
    run 0 study export "$db" --out "$work/r.json" && run 0 report "$work/r.json" -o "$work/q.html" &&
        diff <(grep '<tr ' "$page") <(grep '<tr ' "$work/q.html") &&
        sed -n 's/.*id="result">\(.*\)<\/script>$/\1/p' "$work/q.html" >"$work/again.json" &&
        run 0 study import "$work/again.db" "$work/again.json" && grep -q ' 6 outcomes' "$work/out"
}
expect report-of-a-result of_a_result
no_model() { run 1 report "$db" -o "$work/x.html" --model "$work/none.gguf" && grep -q 'cannot be read' "$work/err" && nothing_left "$work/x.html"; }
expect report-no-model no_model
finish
