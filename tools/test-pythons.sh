#!/bin/sh
# Run the Python tests on every CPython from 3.11 on that is installed: .venv's own first, on both
# drivers at the same time, then each other version in a .venv-3.X with a build of its own. For the sake
# of time the others run at the same time, take turns with the drivers, and leave out what is marked
# `wire`. What is marked `pace` runs alone. EVERYTHING=1 has each of them do all, on both drivers, alone.
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
    mkdir -p "$folders/$1-$3"
    # Folders of its own: pytest tidies up behind earlier runs, and behind one beside it.
    # shellcheck disable=SC2086 # a list of options
    PYTEST_DEBUG_TEMPROOT="$folders/$1-$3" "$2/bin/pytest" --drivers "$3" -m "$4" ${PYTEST_ARGS:-}
}

# Runs what is not of one pace for each VERSION:ENVIRONMENT:DRIVER at the same time, then the rest.
run_beside() { # marks, runs ...
    marks=$1
    shift
    for one; do
        log=$logs/$(echo "$one" | tr -c '[:alnum:]\n' -)
        (
            IFS=: && set -- $one && unset IFS
            run_tests "$1" "$2" "$3" "$marks and not pace" >"$log" 2>&1 && echo 0 >"$log.status" ||
                echo 1 >"$log.status"
        ) &
    done
    wait
    for one; do
        log=$logs/$(echo "$one" | tr -c '[:alnum:]\n' -)
        cat "$log"
        [ "$(cat "$log.status")" = 0 ] || failed="$failed ${one%%:*}"
    done
}

run_beside "not long" "$own:.venv:io_uring" "$own:.venv:poll"
run_tests "$own" .venv io_uring,poll "pace and not long" || failed="$failed $own"

echo "$installed" | awk '{print $1}' | grep -vx "$own" >"$logs/versions" || true
while read -r version; do
    python=$(echo "$installed" | awk -v version="$version" '$1 == version {print $2}')
    (
        echo "== build for CPython $version ($python)"
        "${MAKE:-make}" --no-print-directory build VENV=".venv-$version" PYTHON="$python" \
            TARGET_DIR="target/python-$version" && echo 0 >"$logs/build-$version.status" ||
            echo 1 >"$logs/build-$version.status"
    ) >"$logs/build-$version" 2>&1 &
done <"$logs/versions"
wait
turn=io_uring
ready=""
while read -r version; do
    cat "$logs/build-$version"
    if [ "$(cat "$logs/build-$version.status")" = 0 ]; then
        ready="$ready $version:.venv-$version:$turn"
        [ $turn = poll ] && turn=io_uring || turn=poll
    else
        failed="$failed $version"
    fi
done <"$logs/versions"

if [ -n "${EVERYTHING:-}" ]; then
    for one in $ready; do
        version=${one%%:*}
        run_tests "$version" ".venv-$version" io_uring,poll "not long" || failed="$failed $version"
    done
else
    # shellcheck disable=SC2086 # a list of runs
    run_beside "not long and not wire" $ready
    for one in $ready; do
        version=${one%%:*}
        run_tests "$version" ".venv-$version" "${one##*:}" "pace and not long and not wire" ||
            failed="$failed $version"
    done
fi

for version in 3.11 3.12 3.13 3.14; do
    echo "$installed" | grep -q "^$version " || echo "skipped: CPython $version (not installed)"
done
if [ -n "$failed" ]; then
    echo "failed on CPython:$failed" >&2
    exit 1
fi
