#!/bin/sh
# Find CPython 3.11 and later on this machine.
#
#   tools/pythons.sh main   the interpreter for .venv: python3, or the oldest that is new enough
#   tools/pythons.sh all    a line "3.12 /path/to/python" for each version that is installed
set -eu

# Prints "3.12 /real/path" when $1 is a released CPython from 3.11 on, with a GIL.
probe() {
    "$1" -c '
import sys, sysconfig
good = (
    sys.implementation.name == "cpython"
    and sys.version_info >= (3, 11)
    and sys.version_info.releaselevel == "final"
    and not sysconfig.get_config_var("Py_GIL_DISABLED")
)
if good:
    print("%d.%d %s" % (*sys.version_info[:2], sys.executable))
' 2>/dev/null || true
}

candidates() {
    echo python3
    for minor in 11 12 13 14 15; do echo "python3.$minor"; done
    ls -d "$HOME"/.pyenv/versions/3.1[1-9].*/bin/python 2>/dev/null || true
    ls /opt/python/*/bin/python3 /usr/local/bin/python3.1[1-9] 2>/dev/null || true
}

all() {
    # The first of each version stays, so python3 itself comes before its equals.
    candidates | while read -r candidate; do probe "$candidate"; done |
        awk '!seen[$1]++' | sort -t. -k2 -n
}

case "${1:-all}" in
main)
    found=$(probe python3)
    [ -n "$found" ] || found=$(all | head -n 1)
    echo "${found#* }"
    ;;
all) all ;;
*)
    echo "usage: tools/pythons.sh main|all" >&2
    exit 2
    ;;
esac
