#!/bin/sh
# Run the Python tests on every CPython from 3.11 on that is installed: .venv's own first, then
# each other version in a .venv-3.X with a build of its own. For the sake of time the others take turns
# with the drivers, and leave out what is marked `wire`; EVERYTHING=1 has them do all on both.
set -eu
cd "$(dirname "$0")/.."

own=$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
installed=$(tools/pythons.sh all)
failed=""

run_tests() { # version, virtual environment, drivers, marks
    echo "== Python tests on CPython $1 ($3; $4)"
    # shellcheck disable=SC2086 # a list of options
    "$2/bin/pytest" --drivers "$3" -m "$4" ${PYTEST_ARGS:-} || failed="$failed $1"
}

run_tests "$own" .venv io_uring,poll "not long"
turn=io_uring
echo "$installed" | awk '{print $1}' | grep -vx "$own" >target/.pythons || true
while read -r version; do
    python=$(echo "$installed" | awk -v version="$version" '$1 == version {print $2}')
    echo "== build for CPython $version ($python)"
    if "${MAKE:-make}" --no-print-directory build VENV=".venv-$version" PYTHON="$python" \
        TARGET_DIR="target/python-$version"; then
        if [ -n "${EVERYTHING:-}" ]; then
            run_tests "$version" ".venv-$version" io_uring,poll "not long"
        else
            run_tests "$version" ".venv-$version" $turn "not long and not wire"
        fi
        [ $turn = poll ] && turn=io_uring || turn=poll
    else
        failed="$failed $version"
    fi
done <target/.pythons

for version in 3.11 3.12 3.13 3.14; do
    echo "$installed" | grep -q "^$version " || echo "skipped: CPython $version (not installed)"
done
if [ -n "$failed" ]; then
    echo "failed on CPython:$failed" >&2
    exit 1
fi
