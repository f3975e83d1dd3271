#!/usr/bin/env bash
# make install: a program outside the tree builds and runs against what is installed, by pkg-config,
# shared and static; the library shows the public names only; uninstall leaves nothing.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
if [ -n "${SAN:-}" ]; then
    echo "skip an instrumented library does not load into a plain program"
    exit 77
fi
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
status=0
verdict() { # verdict NAME TRUTH [OUTPUT]
    if [ "$2" = 0 ]; then echo "ok $1"; else echo "FAIL $1" && status=1 && printf '%s\n' "${3:-}"; fi
}
version=$(sed -n 's/^.define KEPT_VERSION "\(.*\)"/\1/p' include/kept/kept.h)
prefix=$tmp/prefix

out=$(make -s --no-print-directory install "PREFIX=$prefix" DESTDIR= 2>&1)
[ $? -eq 0 ] && [ -x "$prefix/bin/kept" ] && [ -L "$prefix/lib/libkept.so" ]
verdict install $? "$out"
cat >"$tmp/p.c" <<'C'
#include <kept/kept.h>
#include <stdio.h>
#include <string.h>
int main(void)
{
    kept_error err;
    kept_model *m = NULL;
    puts(kept_version());
    return strcmp(kept_version(), KEPT_VERSION) || !kept_model_open("/nonexistent", &m, &err);
}
C
export PKG_CONFIG_PATH=$prefix/lib/pkgconfig
# shellcheck disable=SC2046  # lists of flags
out=$(${CC:-cc} "$tmp/p.c" -o "$tmp/shared" $(pkg-config --cflags --libs kept) -Wl,-rpath,"$prefix/lib" 2>&1 &&
    "$tmp/shared")
[ $? -eq 0 ] && [ "$out" = "$version" ]
verdict install_shared $? "$out"
# shellcheck disable=SC2046
out=$(${CC:-cc} "$tmp/p.c" -o "$tmp/static" $(pkg-config --cflags kept) "$prefix/lib/libkept.a" \
    $(pkg-config --static --libs kept | sed 's/-lkept//') -Wl,--disable-new-dtags 2>&1 && "$tmp/static")
[ $? -eq 0 ] && [ "$out" = "$version" ]
verdict install_static $? "$out"
out=$(readelf -d "$prefix/lib/libkept.so" | grep SONAME)
grep -q "\[libkept.so.${version%%.*}\]" <<<"$out"
verdict install_soname $? "$out"
out=$(nm -D --defined-only "$prefix/lib/libkept.so" | awk '$3 !~ /^kept_/ { print $3 }')
[ -z "$out" ] && nm -D --defined-only "$prefix/lib/libkept.so" | grep -q kept_model_open
verdict install_exports_only_kept $? "$out"
"$prefix/bin/kept" pull >/dev/null
verdict install_program_runs $?
out=$(readelf -d "$prefix/bin/kept" "$prefix/lib/libkept.so" | grep -E 'R(UN)?PATH')
if grep -q '^LLAMA_OWN := 1' "${BUILD:-build}/deps.mk"; then
    ! grep -qv "$prefix/lib/kept" <<<"$out"
    verdict install_needs_no_cache $? "$out"
fi
make -s --no-print-directory uninstall "PREFIX=$prefix" DESTDIR=
out=$(find "$prefix" -type f -o -type l)
[ -z "$out" ]
verdict uninstall $? "$out"
exit $status
