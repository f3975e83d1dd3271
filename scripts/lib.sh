# shellcheck shell=bash
# lib: what the scripts share: the cache folder, one-line messages, a lock. Sourced, never run.

kept_cache=${KEPT_CACHE:-${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/kept}
kept_default_model=smollm2-135m
# shellcheck disable=SC2034  # used by the scripts that source this file
{
    kept_text=$kept_cache/text/kjv.txt
    kept_model=$kept_cache/models/$kept_default_model.gguf
    kept_readers=$kept_cache/readers/lm-eval-0.4.13
}

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() {
    say "$*"
    exit 1
}

# lock NAME: holds a lock of this name until the script ends; waits for whoever has it.
lock() {
    mkdir -p "$kept_cache" || die "cannot make the cache folder $kept_cache; set KEPT_CACHE"
    command -v flock >/dev/null || return 0
    exec 9>"$kept_cache/.lock-$1"
    flock -n 9 && return 0
    say "another process is at this step ($1); waiting for it"
    flock 9
}

# sha256_is FILE HEX
sha256_is() { [ -f "$1" ] && [ "$(sha256sum "$1" | cut -d' ' -f1)" = "$2" ]; }

# For awk: f[1..n] become the fields of a line of CSV, quoted as in RFC 4180; returns n.
# shellcheck disable=SC2034,SC2016  # used by the scripts that source this file
kept_split_csv='
    function split_csv(line,   n, i, c, quoted, field) {
        n = 0; field = ""; quoted = 0
        for (i = 1; i <= length(line); i++) {
            c = substr(line, i, 1)
            if (quoted && c == "\"" && substr(line, i + 1, 1) == "\"") { field = field c; i++ }
            else if (c == "\"") quoted = !quoted
            else if (c == "," && !quoted) { f[++n] = field; field = "" }
            else field = field c
        }
        f[++n] = field
        return n
    }
'
