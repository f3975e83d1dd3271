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
