#!/bin/sh
# Run the Python tests on every CPython from 3.11 on that is installed: .venv's own first, then each
# other version in a .venv-3.X with a build of its own. For the sake of time the others run at the same
# time, take turns with the drivers, and leave out what is marked `wire`; what is marked `pace` they run
# one after the other. EVERYTHING=1 has each of them do all, on both drivers, alone.
set -eu
cd "$(dirname "$0")/.."

own=$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
installed=$(tools/pythons.sh all)
failed=""
logs=target/python-tests
mkdir -p "$logs"
folders=$(mktemp -d)
trap 'rm -rf "$folders"' EXIT

run_tests() { # version, virtual environment, drivers, marks
    echo "== Python tests on CPython $1 ($3; $4)"
    mkdir -p "$folders/$1"
    # Folders of its own: pytest tidies up behind earlier runs, and behind one beside it.
    # shellcheck disable=SC2086 # a list of options
    PYTEST_DEBUG_TEMPROOT="$folders/$1" "$2/bin/pytest" --drivers "$3" -m "$4" ${PYTEST_ARGS:-}
}

run_tests "$own" .venv io_uring,poll "not long" || failed="$failed $own"

echo "$installed" | awk '{print $1}' | grep -vx "$own" >"$logs/versions" || true
turn=io_uring
ready=""
while read -r version; do
    python=$(echo "$installed" | awk -v version="$version" '$1 == version {print $2}')
    echo "== build for CPython $version ($python)"
    if "${MAKE:-make}" --no-print-directory build VENV=".venv-$version" PYTHON="$python" \
        TARGET_DIR="target/python-$version"; then
        ready="$ready $version:$turn"
        [ $turn = poll ] && turn=io_uring || turn=poll
    else
        failed="$failed $version"
    fi
done <"$logs/versions"

if [ -n "${EVERYTHING:-}" ]; then
    for one in $ready; do
        run_tests "${one%:*}" ".venv-${one%:*}" io_uring,poll "not long" || failed="$failed ${one%:*}"
    done
else
    for one in $ready; do
        (
            run_tests "${one%:*}" ".venv-${one%:*}" "${one#*:}" "not long and not wire and not pace" \
                >"$logs/${one%:*}.log" 2>&1 && echo 0 >"$logs/${one%:*}.status" ||
                echo 1 >"$logs/${one%:*}.status"
        ) &
    done
    wait
    for one in $ready; do
        cat "$logs/${one%:*}.log"
        [ "$(cat "$logs/${one%:*}.status")" = 0 ] || failed="$failed ${one%:*}"
        run_tests "${one%:*}" ".venv-${one%:*}" "${one#*:}" "pace and not long" ||
            failed="$failed ${one%:*}"
    done
fi

for version in 3.11 3.12 3.13 3.14; do
    echo "$installed" | grep -q "^$version " || echo "skipped: CPython $version (not installed)"
done
if [ -n "$failed" ]; then
    echo "failed on CPython:$failed" >&2
    exit 1
fi
