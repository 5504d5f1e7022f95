#!/bin/sh
# Run the fuzz targets of fuzz/, two at a time, each for SECONDS.
#
#   tools/fuzz.sh [SECONDS] [TARGET ...]
#
# Inputs: the seeds in fuzz/seeds, and what earlier runs have found on the way (fuzz/corpus, not in
# git). A finding fails the run, and its reproducer stays in fuzz/artifacts. cargo-fuzz is installed
# into target/tools when it is missing; without a nightly toolchain all targets are skipped.
set -eu
cd "$(dirname "$0")/.."

seconds=${1:-60}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- $(basename -s .rs fuzz/fuzz_targets/*.rs)
target_dir=${CARGO_TARGET_DIR:-$PWD/target}
built=$target_dir/fuzz/$(uname -m)-unknown-linux-gnu/release
logs=$target_dir/fuzz-logs
PATH=$target_dir/tools/bin:$PATH

if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "fuzzing needs a nightly toolchain: run \`rustup toolchain install nightly\`"
    for target; do echo "skipped: fuzz target $target (no nightly toolchain)"; done
    exit 0
fi
if ! command -v cargo-fuzz >/dev/null; then
    echo "== install cargo-fuzz into $target_dir/tools"
    cargo install cargo-fuzz --locked --quiet --root "$target_dir/tools"
fi

echo "== build $# fuzz targets"
cargo +nightly fuzz build --target-dir "$target_dir/fuzz" 2>"$target_dir/fuzz-build.log" || {
    cat "$target_dir/fuzz-build.log" >&2
    exit 1
}
mkdir -p "$logs"

running=""
watcher=""
# A shell that is stopped takes its fuzzers along.
trap '[ -z "$running$watcher" ] || kill $running $watcher 2>/dev/null || true' EXIT
trap 'exit 130' INT TERM

start() { # target
    mkdir -p "fuzz/corpus/$1" "fuzz/artifacts/$1"
    dictionary=fuzz/dictionaries/$1.dict
    [ -f "$dictionary" ] || dictionary=/dev/null
    "$built/$1" -max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=2048 \
        -print_final_stats=1 -dict="$dictionary" -artifact_prefix="fuzz/artifacts/$1/" \
        "fuzz/corpus/$1" "fuzz/seeds/$1" >"$logs/$1.log" 2>&1 &
    running="$running $!"
}

# The fuzzer's own last word: "cov: 812 ft: 3050 corp: 411/60Kb ... exec/s: 9000".
progress() { # target
    grep -a '^#[0-9]' "$logs/$1.log" | tail -n 1 |
        awk -v name="$1" '{
            runs = substr($1, 2); coverage = corpus = rate = "?"
            for (i = 2; i < NF; i++) {
                if ($i == "cov:") coverage = $(i + 1)
                if ($i == "corp:") corpus = $(i + 1)
                if ($i == "exec/s:") rate = $(i + 1)
            }
            printf "%-12s %10d runs %6s/s  coverage %-6s corpus %s\n", name, runs, rate, coverage, corpus
        }'
}

# Waits for the targets that run; says every ten seconds how far they are.
watch() { # targets
    (
        passed=0
        while sleep 10; do
            passed=$((passed + 10))
            for target; do
                printf '%4d s  ' "$passed"
                progress "$target"
            done
        done
    ) &
    watcher=$!
    for process in $running; do
        wait "$process" || failed="$failed $1"
        shift
    done
    running=""
    kill "$watcher"
    watcher=""
}

failed=""
pair=""
for target; do
    echo "== fuzz $target for $seconds s"
    start "$target"
    pair="$pair $target"
    if [ "$(echo "$pair" | wc -w)" -eq 2 ]; then
        watch $pair
        pair=""
    fi
done
[ -z "$pair" ] || watch $pair

echo "== summary"
for target; do
    progress "$target"
done
for target in $failed; do
    echo "== $target failed:" >&2
    grep -a -m 1 -A 3 'panicked at\|ERROR: ' "$logs/$target.log" >&2 || tail -n 5 "$logs/$target.log" >&2
    reproducer=$(sed -n 's/.*Test unit written to //p' "$logs/$target.log" | tail -n 1)
    echo "reproduce: $built/$target $reproducer (the whole log: $logs/$target.log)" >&2
done
[ -z "$failed" ]
