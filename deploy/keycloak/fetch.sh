#!/bin/sh
# Fetches the pinned Keycloak for the tests into .tools/keycloak-VERSION below the repository's root, or below the directory given as the
# only argument, and prepares it for a quick start with a database in memory. Needs mvn (Maven), Java 17 or newer and python3, and nothing
# else. Prints the directory. Running it again costs nothing; two at once do not disturb each other, because the result is moved into place
# at the end.
set -eu

version=26.7.3
sha256=27a6535553c3cdcd083872ba40629efafb3475e3b758e0c6f691395561dd0f1f
plugin=org.apache.maven.plugins:maven-dependency-plugin:2.8

here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
tools=${1:-$(dirname -- "$(dirname -- "$here")")/.tools}

die() {
    echo "fetch keycloak $version: $*" >&2
    exit 1
}

target=$tools/keycloak-$version
if [ -x "$target/bin/kc.sh" ]; then
    echo "$target"
    exit 0
fi

command -v mvn >/dev/null 2>&1 || die "mvn is missing; install Maven (Debian: apt-get install maven)"
command -v java >/dev/null 2>&1 || die "java is missing; install Java 17 or newer (Debian: apt-get install default-jre-headless)"
command -v python3 >/dev/null 2>&1 || die "python3 is missing; install it (Debian: apt-get install python3)"

mkdir -p "$tools" || die "cannot create $tools"
work=$(mktemp -d "$tools/.keycloak-$version.XXXXXX") || die "cannot write to $tools"
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if ! (cd "$work" && mvn -B -q "$plugin:copy" -Dartifact="org.keycloak:keycloak-quarkus-dist:$version:zip" -DoutputDirectory="$work" >"$work/log" 2>&1); then
    cause=$(grep -m 1 '^\[ERROR\]' "$work/log" || tail -n 1 "$work/log")
    die "Maven could not download it ($cause); check the network, or name a mirror in Maven's settings.xml"
fi
python3 - "$work" "keycloak-quarkus-dist-$version.zip" "$sha256" <<'PY' || die "what Maven downloaded is not what is pinned, or cannot be unpacked"
import hashlib, os, sys, zipfile
work, name, want = sys.argv[1:]
with open(os.path.join(work, name), "rb") as archive:
    got = hashlib.file_digest(archive, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else hashlib.sha256(archive.read()).hexdigest()
if got != want:
    sys.exit(f"sha256 of {name} is {got}, want {want}")
zipfile.ZipFile(os.path.join(work, name)).extractall(work)
PY
home=$work/keycloak-$version
chmod 755 "$work" "$home/bin/kc.sh"
JAVA_OPTS_KC_HEAP="-Xms64m -Xmx512m" "$home/bin/kc.sh" build --db=dev-mem --cache=local >"$work/log" 2>&1 || die "it does not run here: $(grep -v '^$' "$work/log" | tail -n 1)"

# A rename puts nothing into a directory that somebody else, who was quicker, has made meanwhile; theirs is as good.
[ -x "$target/bin/kc.sh" ] || rm -rf "$target"
if ! python3 -c 'import os, sys; os.rename(sys.argv[1], sys.argv[2])' "$home" "$target" 2>/dev/null && [ ! -x "$target/bin/kc.sh" ]; then
    die "cannot move it to $target"
fi
echo "$target"
