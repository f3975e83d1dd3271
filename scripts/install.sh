#!/usr/bin/env bash
# install: what `make install` and `make uninstall` do; make passes everything in variables.
# A llama.cpp that setup.sh built lives in a cache, so its libraries are copied to PREFIX/lib/kept and
# the program and library are linked again to find them there.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
BUILD=${BUILD:-build}
PREFIX=${PREFIX:-/usr/local}
root=${DESTDIR:-}$PREFIX

if [ "${1:-}" = uninstall ]; then
    rm -f "$root/bin/kept" "$root"/lib/libkept.* "$root/lib/pkgconfig/kept.pc" "$root/share/man/man1/kept.1"
    rm -rf "$root/include/kept" "$root/lib/kept"
    exit
fi

mkdir -p "$root/bin" "$root/lib/pkgconfig" "$root/include/kept"
rpath=$LLAMA_LIBDIR
if [ -n "${LLAMA_OWN:-}" ]; then
    mkdir -p "$root/lib/kept"
    cp -P "$LLAMA_LIBDIR"/lib{llama,ggml,ggml-base,ggml-cpu}.so* "$root/lib/kept/"
    cp "$LLAMA_LIBDIR/../LICENSE" "$root/lib/kept/LICENSE.llama.cpp"
    rpath=$PREFIX/lib/kept
fi
libs=${LIBS//rpath,$LLAMA_LIBDIR/rpath,$rpath}
# shellcheck disable=SC2086  # lists of words
{
    ${CC:-cc} -pthread -o "$BUILD/kept.installed" $OBJECTS ${STORE_LIBS:-} $libs
    ${CC:-cc} -shared -pthread -Wl,-soname,"libkept.so.$ABI" -o "$BUILD/libkept.installed" $LIB_OBJECTS $libs
}
install -m 755 "$BUILD/kept.installed" "$root/bin/kept"
install -m 755 "$BUILD/libkept.installed" "$root/lib/libkept.so.$VERSION"
rm -f "$BUILD/kept.installed" "$BUILD/libkept.installed"
ln -sf "libkept.so.$VERSION" "$root/lib/libkept.so.$ABI"
ln -sf "libkept.so.$ABI" "$root/lib/libkept.so"
install -m 644 "$BUILD/libkept.a" "$root/lib/"
install -m 644 include/kept/*.h "$root/include/kept/"
sed -e "s|@PREFIX@|$PREFIX|" -e "s|@VERSION@|$VERSION|" \
    -e "s|@LLAMA_LIBS@|-L$rpath -lllama -lggml -lggml-base -Wl,-rpath,$rpath -Wl,-rpath-link,$rpath|" \
    kept.pc.in >"$root/lib/pkgconfig/kept.pc"
if [ -f man/kept.1 ]; then install -D -m 644 man/kept.1 "$root/share/man/man1/kept.1"; fi
say "kept $VERSION is in $root"
