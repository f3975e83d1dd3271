#!/usr/bin/env bash
# setup: brings what kept is built with and tested on. A step that is done costs milliseconds.
#
#   scripts/setup.sh STEP...     packages       Debian packages for building (names what is missing)
#                                lint-packages  clang and clang-format
#                                plots          the script that draws the plots of kept report
#                                llama          libllama + ggml; writes $BUILD/deps.mk for make
#                                model          the default model, through $BUILD/kept pull
#                                text           the public-domain text that the demo reads
#                                readers        pandas and lm-eval, which read exports in tests
#                                isa            prints what llama.cpp would be built for, and where
#
# Environment: BUILD (build), KEPT_CACHE, KEPT_LLAMA_PREFIX (an installed pair to use),
# KEPT_LLAMA_ISA (base, avx2, avx512: build llama.cpp for less than this CPU has), KEPT_LLAMA_TSAN
# (a build of it for ThreadSanitizer), JOBS.
# Downloads go through pip and apt as they are configured here. They land beside their place, are
# checked, then renamed: an interrupted run leaves nothing half-done behind.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
BUILD=${BUILD:-build}

# The tree inside this source distribution is what gets built where no installed pair is found.
llama_version=0.5.0
sdist=llama_cpp_python-0.3.36.tar.gz
sdist_package=llama-cpp-python==0.3.36
sdist_sha256=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e
llama_min=0.5
# vega, vega-lite and vega-embed as one script. The package's binary makes it, so its pin is the script's.
plots_package=vl-convert-python==1.9.0
plots_sha256=3425bd951a44d478d0505c6b5d1e8d57656b6e9a4da7bfe88a718ce61d76e572
plots=$kept_cache/plots/${plots_sha256:0:12}.js
readers_package=lm_eval==0.4.13 # beside kept_readers of lib.sh
cpuinfo=${KEPT_CPUINFO:-/proc/cpuinfo} # another file: only for tests
ggml_min=0.25

# ---- packages -------------------------------------------------------------------------------

have() { command -v "$1" >/dev/null 2>&1; }
have_pip() { python3 -c 'import importlib.util as u, sys; sys.exit(not u.find_spec("pip"))' 2>/dev/null; }

# The Debian packages whose work cannot be done now, one per line.
missing_packages() {
    { have cc && have ar; } || echo build-essential
    have pkg-config || echo pkg-config
    pkg-config --exists jansson 2>/dev/null || echo libjansson-dev
    pkg-config --exists libcrypto 2>/dev/null || echo libssl-dev
    pkg-config --exists sqlite3 2>/dev/null || echo libsqlite3-dev
    pkg-config --exists libzstd 2>/dev/null || echo libzstd-dev
    pkg-config --exists lapack 2>/dev/null || echo liblapack-dev
    if [ -z "${KEPT_LLAMA_PREFIX:-}" ] && ! [ -d "$(llama_home)" ] && ! system_llama; then
        have cmake || echo cmake
        { have c++ && have make; } || echo build-essential
    fi
    have python3 || echo python3
    have_pip || echo python3-pip
    [ -s "$kept_text" ] || have bible || echo bible-kjv
}
missing_lint_packages() {
    have clang || echo clang
    have clang-format || echo clang-format
}

# install_packages NAME...: with apt-get as root or through sudo -n; false if it cannot.
install_packages() {
    local as=() p
    have apt-get || return 1
    if [ "$(id -u)" != 0 ]; then
        { have sudo && sudo -n true 2>/dev/null; } || return 1
        as=(sudo -n)
    fi
    as+=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0)
    say "installing $*"
    "${as[@]}" install -y --no-install-recommends "$@" >/dev/null 2>&1 && return 0
    "${as[@]}" update >/dev/null 2>&1 || true
    "${as[@]}" install -y --no-install-recommends "$@" >/dev/null && return 0
    for p in "$@"; do # one that is not to be had must not keep the others away
        "${as[@]}" install -y --no-install-recommends "$p" >/dev/null 2>&1 || true
    done
}

# step_packages FUNCTION: installs what FUNCTION lists; says in one line what stays missing.
step_packages() {
    local list
    list=$("$1" | sort -u | tr '\n' ' ')
    [ -n "$list" ] || return 0
    # shellcheck disable=SC2086  # a list of words
    install_packages $list || true
    list=$("$1" | sort -u | tr '\n' ' ')
    [ -z "$list" ] || say "not here, and not mine to install: ${list% }" \
        "(Debian: apt-get install ${list% }); going on with what is here"
}

# ---- plots ----------------------------------------------------------------------------------

# Without it all but `kept report` works, so this never fails.
step_plots() (
    [ -s "$plots" ] && return
    { have python3 && have_pip; } || return 0 # already said by packages
    lock plots
    [ -s "$plots" ] && return
    tmp=$(mktemp -d "$kept_cache/plots.XXXXXX")
    trap 'rm -rf "$tmp"' EXIT
    say "getting $plots_package (30 MB), for the plots of kept report"
    python3 -m pip -q --no-input --disable-pip-version-check --retries 1 --timeout 20 install \
        --no-deps --no-cache-dir --only-binary :all: --target "$tmp/p" \
        $plots_package >"$tmp/log" 2>&1 &&
        PYTHONPATH=$tmp/p python3 -c 'import sys, vl_convert as v
sys.stdout.buffer.write(v.javascript_bundle().encode())' >"$tmp/js" 2>>"$tmp/log" || {
        say "could not get $plots_package with pip; kept is built without kept report ($(tail -n 1 "$tmp/log"))"
        return 0
    }
    sha256_is "$tmp/js" $plots_sha256 || {
        say "$plots_package made another script than this version was tested with (SHA-256 differs); not used"
        return 0
    }
    mkdir -p "${plots%/*}"
    mv "$tmp/js" "$plots"
)

# ---- readers --------------------------------------------------------------------------------

# Packages that read what `kept study export` writes: for tests alone. Never fails, and gives up after
# two minutes: the tests then say what they could not do.
step_readers() (
    [ -d "$kept_readers" ] && return
    { have python3 && have_pip; } || return 0
    lock readers
    [ -d "$kept_readers" ] && return
    tmp=$(mktemp -d "$kept_cache/readers.XXXXXX")
    trap 'rm -rf "$tmp"' EXIT
    pip=(timeout 120 python3 -m pip -q --no-input --disable-pip-version-check --retries 1 --timeout 20
        install --no-cache-dir --only-binary :all: --target "$tmp/p")
    say "getting pandas and lm-eval (80 MB), for tests of exports"
    { "${pip[@]}" pandas numpy requests pyyaml jinja2 pytablewriter &&
        "${pip[@]}" --no-deps $readers_package; } >"$tmp/log" 2>&1 || {
        say "could not get them with pip; tests of exports skip them ($(tail -n 1 "$tmp/log"))"
        return 0
    }
    mkdir -p "${kept_readers%/*}"
    mv "$tmp/p" "$kept_readers"
)

# ---- llama ----------------------------------------------------------------------------------

# The instruction sets to build for, in words: "avx512+vbmi+vnni+bf16". Never -march=native: on
# CPUs with AVX512-FP16 it makes half-precision dot products both slower and less exact.
llama_isa() {
    local arch flags=" " cap=${KEPT_LLAMA_ISA:-} isa=base
    arch=$(uname -m)
    case $cap in '' | base | avx2 | avx512) ;; *) die "KEPT_LLAMA_ISA=$cap: use base, avx2 or avx512" ;; esac
    if [ "$arch" != x86_64 ]; then
        echo "$arch"
        return
    fi
    [ -r "$cpuinfo" ] && flags=" $(sed -n 's/^flags[^:]*: //p;T;q' "$cpuinfo") "
    all() { local f; for f in "$@"; do case $flags in *" $f "*) ;; *) return 1 ;; esac; done; }
    if [ "$cap" != base ] && all sse4_2 avx avx2 fma f16c bmi2; then
        isa=avx2
        if [ "$cap" != avx2 ] && all avx512f avx512cd avx512bw avx512dq avx512vl; then
            isa=avx512
            if all avx512vbmi; then isa+=+vbmi; fi
            if all avx512_vnni; then isa+=+vnni; fi
            if all avx512_bf16; then isa+=+bf16; fi
        fi
    fi
    echo $isa
}

# The cmake options, one per line: library targets only, nothing that needs the network.
llama_options() {
    local o on=OFF isa
    isa=$(llama_isa)
    printf -- '-D%s\n' CMAKE_BUILD_TYPE=Release BUILD_SHARED_LIBS=ON CMAKE_INSTALL_LIBDIR=lib \
        "CMAKE_INSTALL_RPATH=\$ORIGIN" LLAMA_BUILD_IS_DEV=OFF LLAMA_OPENSSL=OFF GGML_CCACHE=OFF \
        GGML_NATIVE=OFF
    # ThreadSanitizer must see ggml's barriers, and cannot see OpenMP's.
    [ -z "${KEPT_LLAMA_TSAN:-}" ] || printf -- '-D%s\n' LLAMA_SANITIZE_THREAD=ON GGML_SANITIZE_THREAD=ON GGML_OPENMP=OFF
    for o in COMMON TESTS TOOLS EXAMPLES SERVER APP; do echo "-DLLAMA_BUILD_$o=OFF"; done
    case $isa in
    base | avx*)
        [ "$isa" = base ] || on=ON
        for o in SSE42 AVX AVX2 BMI2 FMA F16C; do echo "-DGGML_$o=$on"; done
        for o in avx512 vbmi vnni bf16; do
            case $isa in *$o*) on=ON ;; *) on=OFF ;; esac
            if [ $o != avx512 ]; then o=avx512_$o; fi
            echo "-DGGML_${o^^}=$on"
        done
        ;;
    esac
}

# Where the built pair lives: the name holds all that the machine code depends on.
llama_home() {
    local hash
    hash=$({
        echo "$sdist_sha256"
        llama_options
        cc -dumpfullversion -dumpmachine 2>/dev/null
        getconf GNU_LIBC_VERSION 2>/dev/null
    } | sha256sum | cut -c1-12)
    echo "$kept_cache/llama/$llama_version-$(llama_isa)-$hash"
}

at_least() { [ "$(printf '%s\n' "$2" "$1" | sort -V | head -n1)" = "$2" ]; }
system_llama() { [ -z "${KEPT_LLAMA_ISA:-}${KEPT_LLAMA_TSAN:-}" ] && pkg-config --atleast-version=$llama_min llama 2>/dev/null; }

fetch_sdist() {
    local dir=$kept_cache/dist
    sha256_is "$dir/$sdist" $sdist_sha256 && return
    { have python3 && have_pip; } || die "python3 with pip is needed to get llama.cpp (Debian: python3-pip)"
    say "getting $sdist_package (75 MB)"
    rm -rf "$dir" && mkdir -p "$dir/new"
    # pip asks the package for its metadata, which brings its build backend into a throw-away place.
    python3 -m pip -q --no-input --disable-pip-version-check download --no-deps --no-cache-dir \
        --no-binary llama-cpp-python -d "$dir/new" $sdist_package >&2 ||
        die "could not get $sdist_package with pip; or set KEPT_LLAMA_PREFIX to an installed llama.cpp"
    sha256_is "$dir/new/$sdist" $sdist_sha256 ||
        die "$sdist is not the file this version was tested with (SHA-256 differs); stopped"
    mv "$dir/new/$sdist" "$dir/$sdist"
    rmdir "$dir/new"
}

build_llama() {
    local home=$1 tmp log=$kept_cache/llama-build.log gen=() start=$SECONDS
    { have cmake && have c++; } || die "cmake and a C++ compiler are needed (Debian: build-essential cmake)"
    lock llama
    [ -d "$home" ] && return
    fetch_sdist
    if have ninja; then gen=(-G Ninja); fi
    tmp=$(mktemp -d "$kept_cache/build.XXXXXX")
    # shellcheck disable=SC2064  # tmp is local: expand it now
    trap "rm -rf '$tmp'" EXIT
    tar -xzf "$kept_cache/dist/$sdist" -C "$tmp" --strip-components=3 --wildcards \
        '*/vendor/llama.cpp/CMakeLists.txt' '*/vendor/llama.cpp/LICENSE' \
        '*/vendor/llama.cpp/cmake' '*/vendor/llama.cpp/ggml' '*/vendor/llama.cpp/include' \
        '*/vendor/llama.cpp/licenses' '*/vendor/llama.cpp/src' '*/vendor/llama.cpp/vendor'
    say "building llama.cpp $llama_version for $(llama_isa) (a few minutes, once); log: $log"
    {
        mapfile -t options < <(llama_options)
        cmake -S "$tmp" -B "$tmp/b" "${gen[@]}" "${options[@]}" "-DCMAKE_INSTALL_PREFIX=$home" &&
            cmake --build "$tmp/b" -j "${JOBS:-$(nproc)}" &&
            DESTDIR=$tmp/out cmake --install "$tmp/b"
    } >"$log" 2>&1 || {
        tail -n 20 "$log" >&2
        die "llama.cpp did not build; the whole log is $log"
    }
    cp "$tmp/LICENSE" "$tmp/out$home/LICENSE"
    mkdir -p "${home%/*}"
    mv "$tmp/out$home" "$home"
    rm -rf "$tmp"
    trap - EXIT
    say "llama.cpp is in $home ($((SECONDS - start)) s)"
}

# libdir PREFIX: where its libllama is.
libdir() {
    local d
    for d in "$1/lib" "$1/lib64" "$1/lib/$(cc -print-multiarch 2>/dev/null)"; do
        if [ -e "$d/libllama.so" ] || [ -e "$d/libllama.a" ]; then
            echo "$d"
            return
        fi
    done
    die "no libllama in $1 (looked in lib and lib64); KEPT_LLAMA_PREFIX is where llama.cpp was installed"
}

# probe FILE: builds and runs a small program against the pair named in FILE (a deps.mk).
probe() {
    local dir cflags libs versions
    dir=$(mktemp -d)
    cflags=$(sed -n 's/^LLAMA_CFLAGS := //p' "$1")
    libs=$(sed -n 's/^LLAMA_LIBS := //p' "$1")
    cat >"$dir/p.c" <<'C'
#include <ggml.h>
#include <llama.h>
#include <stdio.h>
int main(void) { return printf("%s %s\n", llama_version(), ggml_version()) < 0; }
C
    # shellcheck disable=SC2086  # lists of flags
    versions=$(cc ${KEPT_LLAMA_TSAN:+-fsanitize=thread} $cflags "$dir/p.c" -o "$dir/p" $libs 2>&1 && "$dir/p") || {
        rm -rf "$dir"
        die "the installed llama.cpp does not link: $(echo "$versions" | tail -n 1)"
    }
    rm -rf "$dir"
    { at_least "${versions% *}" $llama_min && at_least "${versions#* }" $ggml_min; } ||
        die "llama.cpp ${versions% *} with ggml ${versions#* } is too old: $llama_min and $ggml_min are needed"
}

step_llama() {
    local prefix lib cflags libs new=$BUILD/deps.mk.$$ own=
    have pkg-config || die "pkg-config is missing (Debian: pkg-config)"
    pkg-config --exists jansson libcrypto sqlite3 libzstd lapack ||
        die "jansson, libcrypto, sqlite3, libzstd and LAPACK are needed" \
            "(Debian: libjansson-dev libssl-dev libsqlite3-dev libzstd-dev liblapack-dev)"
    if [ -n "${KEPT_LLAMA_PREFIX:-}" ]; then
        prefix=$KEPT_LLAMA_PREFIX
    elif system_llama; then
        prefix=$(pkg-config --variable=prefix llama)
    else
        prefix=$(llama_home)
        own=1
        [ -d "$prefix" ] || build_llama "$prefix"
    fi
    lib=$(libdir "$prefix")
    cflags="-isystem $prefix/include"
    libs="-L$lib -lllama -lggml -lggml-base"
    case $prefix in
    /usr | /usr/local)
        cflags=''
        libs=${libs#"-L$lib "}
        ;;
    # DT_RPATH, not DT_RUNPATH: the libraries of most private prefixes cannot find each other.
    *) libs+=" -Wl,--disable-new-dtags,-rpath,$lib -Wl,-rpath-link,$lib" ;;
    esac
    mkdir -p "$BUILD"
    {
        echo "# written by scripts/setup.sh"
        echo "LLAMA_PREFIX := $prefix"
        echo "LLAMA_LIBDIR := $lib"
        echo "LLAMA_OWN := $own"
        echo "LLAMA_CFLAGS := $cflags"
        echo "LLAMA_LIBS := $libs"
        echo "DEPS_CFLAGS := $(pkg-config --cflags jansson libcrypto sqlite3 libzstd)"
        echo "DEPS_LIBS := $(pkg-config --libs jansson libcrypto libzstd lapack)"
        echo "STORE_LIBS := $(pkg-config --libs sqlite3)"
        echo "PLOTS := $([ ! -s "$plots" ] || echo "$plots")"
    } >"$new"
    if cmp -s "$new" "$BUILD/deps.mk"; then
        rm -f "$new"
    else
        (probe "$new") || {
            rm -f "$new"
            exit 1
        }
        mv "$new" "$BUILD/deps.mk"
    fi
}

# ---- model, text ----------------------------------------------------------------------------

step_model() {
    [ -s "$kept_model" ] || "$BUILD/kept" pull $kept_default_model >/dev/null
}

# The King James text as prose: no verse marks, a chapter a line.
step_text() {
    local bible=() dir=$kept_cache/text new deb
    [ -s "$kept_text" ] && return
    mkdir -p "$dir"
    if have bible; then
        bible=(bible)
    elif have apt-get && (cd "$dir" && apt-get -qq download bible-kjv bible-kjv-text >/dev/null 2>&1); then
        for deb in "$dir"/*.deb; do dpkg -x "$deb" "$dir/deb" && rm -f "$deb"; done
        bible=("$dir/deb/usr/bin/bible" -p "$dir/deb/usr/lib")
    else
        say "no text: the command bible is missing (Debian: bible-kjv)"
        return 1
    fi
    new=$kept_text.$$
    "${bible[@]}" -f Gen1:1-Rev22:21 | awk '
        function flush() { if (line != "") print line; line = "" }
        $1 ~ /^[0-9]?[A-Za-z]+[0-9]+:[0-9]+$/ {
            split($1, mark, ":")
            if (mark[1] != chapter) flush()
            chapter = mark[1]
            $1 = ""
        }
        NF { $1 = $1; sub(/^ /, ""); line = line (line == "" ? "" : " ") $0 }
        END { flush() }' >"$new"
    if [ "$(wc -c <"$new")" -lt 4000000 ]; then
        rm -f "$new"
        say "no text: the command bible printed less than the whole book"
        return 1
    fi
    mv "$new" "$kept_text"
    rm -rf "$dir/deb"
}

[ $# -gt 0 ] || die "usage: scripts/setup.sh packages|lint-packages|plots|llama|model|text|readers|isa..."
for step in "$@"; do
    case $step in
    packages) step_packages missing_packages ;;
    lint-packages) step_packages missing_lint_packages ;;
    plots | llama | model | text | readers) "step_$step" ;;
    isa) llama_isa && llama_home && llama_options ;;
    *) die "unknown step $step; there are packages, lint-packages, plots, llama, model, text, readers and isa" ;;
    esac
done
