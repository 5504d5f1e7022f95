#!/bin/sh
# Where the time of our server goes: top symbols (perf) and system calls per request (strace).
# usage: bench/profile.sh [--workloads abd] [--seconds 5]; see bench/profiling.py --help
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-$here/../.venv/bin/python}
[ -x "$python" ] || python=python3
exec "$python" "$here/profiling.py" "$@"
