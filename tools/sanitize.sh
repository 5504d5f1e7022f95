#!/bin/sh
# Run the tests under AddressSanitizer and ThreadSanitizer, with pools that do not recycle.
#
#   tools/sanitize.sh [rust-address] [extension-address] [rust-thread]
#
#   rust-address        the Rust tests of memory, io, server, and simulated seeds
#   extension-address   the Python behaviour tests, on servers whose extension is instrumented
#   rust-thread         the Rust tests in which threads meet, and simulated seeds, for races
#
# What cannot run is said by name. Needs a nightly toolchain and, for the extension, gcc's libasan
# and what `make build` makes.
set -eu
cd "$(dirname "$0")/.."

[ $# -gt 0 ] || set -- rust-address extension-address rust-thread
target_dir=${CARGO_TARGET_DIR:-$PWD/target}/sanitize
host=$(uname -m)-unknown-linux-gnu
python=$PWD/${VENV:-.venv}/bin/python
seeds=${SEEDS:-300}
mkdir -p "$target_dir"

summary=""
note() { # text
    summary="$summary
  $1"
}

# Runs a command, shows its output and keeps it in a log. A pipe alone would lose the status.
logged() { # log, command ...
    log=$target_dir/$1.log
    shift
    { "$@" 2>&1 && echo 0 >"$log.status" || echo 1 >"$log.status"; } | tee "$log" |
        grep -E --line-buffered \
            '^ +Running|^test result|(FAILED|ignored.*)$|^error|panicked|Sanitizer|seeds|^    #[0-5] ' ||
        true
    return "$(cat "$log.status")"
}

# Builds by nightly with these flags, beside other builds.
instrumented() { # name, flags
    name=$1
    export RUSTFLAGS="$2" CARGO_TARGET_DIR="$target_dir/$name"
}

rust_test() { # log, arguments of cargo test
    log=$1
    shift
    logged "$log" cargo +nightly test --locked --target "$host" \
        --features theframework/no-recycle "$@"
}

# Every step of the engine, with faults, on several threads.
simulate() {
    logged "$name-simulator" cargo +nightly run --locked --target "$host" --profile checked \
        -p theframework-simulator --features no-recycle -- --seeds "$seeds"
}

# The crates with unsafe code, and the engine on them.
rust_address() (
    instrumented rust-address "-Zsanitizer=address"
    echo "excluded: steady_state_allocates_nothing, a_request_through_routes_middleware_and_json_allocates_nothing (they count allocations; nothing is recycled here)"
    echo "excluded: dropping_the_driver_does_not_wait_for_ever (leaks what a read may still write to)"
    echo "excluded: poll::a_forked_child_closes… (what the child gives up is never freed)"
    # Tests start them as programs.
    logged "$name-examples" cargo +nightly build --locked --target "$host" \
        --features theframework/no-recycle -p theframework --examples || return 1
    rust_test "$name" -p theframework-memory -p theframework-io -p theframework --lib --tests \
        -- --skip steady_state_allocates_nothing --skip json_allocates_nothing \
        --skip poll::a_forked_child_closes \
        --skip dropping_the_driver_does_not_wait_for_ever && simulate || return 1
    # The face for Rust under clients that reset.
    logged "$name-example" cargo +nightly build --locked --target "$host" --profile checked \
        -p theframework --example bench --features theframework/no-recycle &&
        "$python" -m tests.rust_face --seconds 5 --connections 400 \
            --binary "$CARGO_TARGET_DIR/$host/checked/examples/bench"
)

# Where threads meet: the workers' load, the counting allocator, engines with client threads.
rust_thread() (
    instrumented rust-thread "-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer"
    # std is not instrumented: what it does by fences is in the list of suppressions, and what it
    # does to print a backtrace is not done.
    export TSAN_OPTIONS="suppressions=$PWD/tools/tsan.supp" RUST_BACKTRACE=0
    rust_test "$name" -p theframework -p theframework-memory --test client_threads \
        --test counting_threads && rust_test "$name-lib" -p theframework -p theframework-io --lib &&
        simulate
)

# A copy of the package with an instrumented extension. greenlet copies slices of the stack, red
# zones and all, so the stack is not instrumented.
build_extension() {
    package=$target_dir/python/theframework
    RUSTFLAGS="-Zsanitizer=address -Cllvm-args=-asan-stack=0" PYO3_PYTHON=$python \
        CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_TARGET_DIR="$target_dir/extension" \
        cargo +nightly build --locked --quiet --target "$host" -p theframework-python \
        --features no-recycle || return 1
    rm -rf "$target_dir/python"
    mkdir -p "$package"
    cp -R python/theframework/. "$package/"
    rm -f "$package"/*.so
    suffix=$("$python" -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')
    cp "$target_dir/extension/$host/debug/lib_framework_core.so" "$package/_framework_core$suffix"
}

extension_address() {
    build_extension || return 1
    reports=$target_dir/reports
    rm -rf "$reports"
    mkdir -p "$reports"
    # Tests that measure what a sanitizer or the missing pools change.
    deselected=""
    while read -r test reason; do
        echo "excluded: $test ($reason)"
        deselected="$deselected --deselect $test"
    done <<'TESTS'
tests/test_steady.py::test_no_allocation_per_request counts allocations; nothing is recycled here
tests/test_steady.py::test_system_calls_per_request counts system calls; the sanitizer maps memory
tests/test_stress.py::test_memory_does_not_grow_from_burst_to_burst freed memory is kept in quarantine
tests/test_files.py::test_slow_clients_hold_a_window_each freed memory is kept in quarantine
tests/test_idle.py::test_idle_connections_cost_next_to_nothing freed memory is kept in quarantine
tests/test_streaming.py::test_a_slow_reader_parks_the_handler freed memory is kept in quarantine
tests/test_streaming.py::test_two_gigabytes_each_way_in_little_memory freed memory is kept in quarantine
tests/test_fairness.py::test_hello_beside_a_computing_thread measures milliseconds
tests/test_workers.py::test_connections_spread_over_workers depends on the pace of two workers
TESTS
    # pytest itself runs as always; `tests/server.py` gives these to servers. libstdc++ is loaded
    # early, or the runtime does not find what greenlet throws with. Objects come from malloc, so
    # that theirs is watched too. Leaks are not looked for: the interpreter never frees much of its
    # own, and all of that would be reported at each exit.
    # shellcheck disable=SC2086 # a list of options
    SERVER_ENV_LD_PRELOAD="$libasan $(gcc -print-file-name=libstdc++.so.6)" \
        SERVER_ENV_ASAN_OPTIONS="detect_leaks=0:exitcode=99:log_path=$reports/asan" \
        SERVER_ENV_PYTHONMALLOC=malloc SERVER_ENV_PYTHONPATH="$target_dir/python" \
        SANITIZER_REPORTS="$reports" "$python" -m pytest $deselected ${PYTEST_ARGS:-} || return 1
    [ -z "$(ls -A "$reports")" ] || {
        cat "$reports"/*
        return 1
    }
}

# Why a part cannot run here, in a sentence; nothing if it can.
obstacle() { # part
    if ! cargo +nightly --version >/dev/null 2>&1; then
        echo "no nightly toolchain; run \`rustup toolchain install nightly\`"
    elif [ "$1" = extension-address ]; then
        [ -f "$libasan" ] || echo "no libasan; install gcc's (Debian: libasan8 or later)"
        [ -x "$python" ] || echo "no $python; run \`make build\`"
    fi
}

# gcc prints the bare name of what it does not have.
libasan=$(gcc -print-file-name=libasan.so 2>/dev/null || true)
failed=""
for part; do
    begun=$(date +%s)
    why=$(obstacle "$part")
    if [ -n "$why" ]; then
        note "skipped: $part ($why)"
        continue
    fi
    echo "== $part"
    # A function of that name; `-` is no letter of a name in sh.
    if "$(echo "$part" | tr - _)"; then verdict=passed; else verdict=failed; fi
    [ $verdict = passed ] || failed="$failed $part"
    note "$verdict: $part in $(($(date +%s) - begun)) s"
done
echo "== summary$summary"
[ -z "$failed" ]
