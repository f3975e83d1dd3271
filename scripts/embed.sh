#!/usr/bin/env bash
# embed: text files as C, on stdout, for $BUILD/gen/NAME.inc.
#
#   scripts/embed.sh models           a string per line of share/models.tsv
#   scripts/embed.sh presets          a string per file of share/presets, its name in the first line
#   scripts/embed.sh page [SCRIPT]    arrays of the files of src/report/page, and of the script that draws
#                                     plots (empty without one)
set -euo pipefail
cd "$(dirname "$0")/.."

strings() { sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e "s/.*/\"&$1\"$2/"; }
# array NAME FILE: octal digits, which both compilers read 20 times as fast as numbers
array() {
    printf 'static const char %s[] =\n' "$1"
    if [ -s "$2" ]; then od -An -v -to1 "$2" | sed -e 's/  */\\/g' -e 's/.*/    "&"/'; else echo '    ""'; fi
    echo ';'
}

case ${1:-} in
models) strings '' , <share/models.tsv ;;
presets)
    for file in share/presets/*; do
        { echo "${file##*/}" && cat "$file"; } | strings '\\n' ''
        echo ,
    done
    ;;
page)
    for file in src/report/page/*; do
        name=${file##*/}
        array "page_${name//[!a-z]/_}" "$file"
    done
    array page_plots "${2:-/dev/null}"
    ;;
*) echo "usage: scripts/embed.sh models|presets|page [SCRIPT]" >&2 && exit 1 ;;
esac
