#!/usr/bin/env bash
# usage: torchrun.sh FIRST_HOST NODE MODEL [more flags of cadre serve]      NODE is 0 on the first host, 1 on the second
# cadre meets at the port after torchrun's own (29500).
set -euo pipefail
[ $# -ge 3 ] || { sed -n 2p "$0" >&2; exit 2; }
first=$1 node=$2 model=$3
shift 3
nodes=${NODES:-2}
exec torchrun --no-python --nproc-per-node 1 --nnodes "$nodes" --node-rank "$node" \
  --master-addr "$first" --master-port 29500 \
  cadre serve "$model" --enable-expert-parallel --data-parallel-size "$nodes" "$@"
