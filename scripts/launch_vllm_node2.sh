#!/usr/bin/env bash
# A further node of an expert-parallel deployment: runs its share of the ranks; the first node answers requests.
set -euo pipefail
here="$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")"
. "$here/node_launch.sh"

usage() {
  cat << USAGE
usage: $(basename "$0") NODE1_IP [RPC_PORT] [MODEL] [TOTAL_DP] [LOCAL_DP] [START_RANK]

  NODE1_IP    address of the FIRST node, not of this one
  RPC_PORT    the same as on the first node        (13345)
  MODEL       the same as on the first node        (deepseek-ai/DeepSeek-V3-0324)
  TOTAL_DP    the same as on the first node        (16)
  LOCAL_DP    ranks on this node                   (8)
  START_RANK  this node's first rank: the ranks of all nodes before it (8)

Environment: as launch_vllm_node1.sh, the same on all nodes but for the interface.
Example: $(basename "$0") 10.1.59.30 13345 deepseek-ai/DeepSeek-V3-0324 16 8 8
USAGE
}

case "${1:-}" in
  -h | --help) usage; exit 0 ;;
  "") echo "Error: NODE1_IP is missing" >&2; usage >&2; exit 1 ;;
esac
node1_ip=$1 rpc_port=${2:-13345} model=${3:-deepseek-ai/DeepSeek-V3-0324}
total_dp=${4:-16} local_dp=${5:-8} start_rank=${6:-8}
check_number RPC_PORT "$rpc_port" 1 65535
check_number TOTAL_DP "$total_dp" 1 65536
check_number LOCAL_DP "$local_dp" 1 "$total_dp"
check_number START_RANK "$start_rank" 1 "$((total_dp - local_dp))"
export VLLM_ALL2ALL_BACKEND="${VLLM_ALL2ALL_BACKEND:-allgather_reducescatter}"
program=$(find_program)
choose_interface "$node1_ip"

cat << BOX
=============== Expert parallel: further node =============
Role       computes (headless), ranks $start_rank to $((start_rank + local_dp - 1)) of $total_dp
Model      $model
Exchange   $VLLM_ALL2ALL_BACKEND
Meeting    $node1_ip:$rpc_port, over $interface
===========================================================
BOX
exec "$program" serve "$model" --tensor-parallel-size 1 --enable-expert-parallel \
  --data-parallel-size "$total_dp" --data-parallel-size-local "$local_dp" \
  --data-parallel-address "$node1_ip" --data-parallel-rpc-port "$rpc_port" \
  --data-parallel-start-rank "$start_rank" --headless --trust-remote-code ${CADRE_ARGS:-}
