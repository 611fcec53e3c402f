#!/usr/bin/env bash
# usage: mpirun.sh HOST,HOST... MODEL [more flags of cadre serve]
# Open MPI does not tell its processes where process 0 runs, so the address is given.
set -euo pipefail
[ $# -ge 2 ] || { sed -n 2p "$0" >&2; exit 2; }
hosts=$1 model=$2
shift 2
IFS=, read -r -a names <<< "$hosts"
exec mpirun --host "$hosts" --map-by node -np "${#names[@]}" \
  cadre serve "$model" --enable-expert-parallel --data-parallel-size "${#names[@]}" \
  --data-parallel-address "${names[0]}" "$@"
