#!/bin/sh
# Say in one sentence what is missing for a build. $1 is the interpreter that was found, if any.
set -eu

missing() {
    echo "theframework: error: $1" >&2
    exit 1
}

[ -n "${1:-}" ] ||
    missing "no CPython 3.11 or later was found; install python3 or set PYTHON=/path/to/python3"
"$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    missing "$1 is not Python 3.11 or later; set PYTHON=/path/to/python3"
"$1" -c 'import ensurepip, venv' 2>/dev/null ||
    missing "$1 cannot make virtual environments; install its venv package (Debian: python3-venv)"
command -v cargo >/dev/null ||
    missing "cargo was not found; install Rust 1.88 or later from https://rustup.rs"
command -v cc >/dev/null ||
    missing "no C compiler named cc was found; install gcc or clang (Debian: build-essential)"
