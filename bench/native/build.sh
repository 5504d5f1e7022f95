#!/bin/sh
# build.sh DIR: builds the Rust peers, the allocation counter and syscall_cost into DIR.
# What does not build is named at the end, and the bench goes on without it.
set -u
here=$(cd "$(dirname "$0")" && pwd)
dir=${1:?usage: build.sh DIR}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
export CARGO_TARGET_DIR="$dir/target"
failed=""

try() { # try NAME COMMAND...
  name=$1
  shift
  echo "building $name"
  "$@" || failed="$failed $name"
}

peer() { # peer CRATE [FEATURE OUT]: binaries of several features of one crate get names of their own
  cargo build --quiet --release -p "$1" ${2:+--features "$2"} || return 1
  if [ -n "${3:-}" ]; then cp "$CARGO_TARGET_DIR/release/$1" "$dir/$3"; fi
}

try syscall_cost gcc -O2 -march=native -Wall -Wextra -o "$dir/syscall_cost" "$here/../floor/syscall_cost.c"
try malloc_count gcc -O2 -shared -fPIC -o "$dir/malloc_count.so" "$here/tools/malloc_count.c"
cd "$here/apps" || exit 1
for crate in hyper axum actix minihttp raw; do try "$crate" peer "$crate-hello"; done
for runtime in tokio compio neon-uring; do
  try "ntex-$runtime" peer ntex-hello "$runtime" "ntex-$runtime"
done
try xitca-epoll peer xitca-hello "" xitca-epoll
try xitca-uring peer xitca-hello io-uring xitca-uring

if [ -n "$failed" ]; then
  echo "not built:$failed" >&2
  exit 1
fi
