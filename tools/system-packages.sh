#!/bin/sh
# With SYSTEM_PACKAGES=1, as root and where apt-get is: install the programs that some tests use.
# Without it those tests are reported as skipped.
set -eu

[ "${SYSTEM_PACKAGES:-0}" = 1 ] || exit 0
wanted=""
# The program that is looked for, and the package where its name is another.
for program in wrk strace curl slowhttptest chromium h2load:nghttp2-client; do
    command -v "${program%%:*}" >/dev/null || wanted="$wanted ${program##*:}"
done
[ -n "$wanted" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "SYSTEM_PACKAGES=1 needs root and apt-get; not installed:$wanted" >&2
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 # a list of names
{ apt-get -qq update && apt-get -qq install -y --no-install-recommends $wanted >/dev/null; } ||
    echo "apt-get could not install:$wanted; tests that need them are skipped" >&2
