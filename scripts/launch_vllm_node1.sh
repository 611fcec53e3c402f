#!/usr/bin/env bash
# The first node of an expert-parallel deployment: runs its share of the ranks and answers all requests.
set -euo pipefail
here="$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")"
. "$here/node_launch.sh"

usage() {
  cat << USAGE
usage: $(basename "$0") NODE1_IP [RPC_PORT] [MODEL] [TOTAL_DP] [LOCAL_DP] [API_SERVERS]

  NODE1_IP     address of this node, as the other nodes reach it
  RPC_PORT     where the nodes meet                 (13345)
  MODEL        a folder, or a name in the hub cache (deepseek-ai/DeepSeek-V3-0324)
  TOTAL_DP     ranks on all nodes together          (16)
  LOCAL_DP     ranks on this node                   (8)
  API_SERVERS  as in vLLM; one server with threads answers here (8)

Environment: VLLM_ALL2ALL_BACKEND (allgather_reducescatter), NCCL_SOCKET_IFNAME or GLOO_SOCKET_IFNAME (the
interface that leads to the other nodes), CADRE (the program), CADRE_ARGS (more flags), and all that cadre serve reads.
Example: $(basename "$0") 10.1.59.30 13345 deepseek-ai/DeepSeek-V3-0324 16 8 8
On every further node: launch_vllm_node2.sh with the same first five words and its first rank.
USAGE
}

case "${1:-}" in
  -h | --help) usage; exit 0 ;;
  "") echo "Error: NODE1_IP is missing" >&2; usage >&2; exit 1 ;;
esac
node1_ip=$1 rpc_port=${2:-13345} model=${3:-deepseek-ai/DeepSeek-V3-0324}
total_dp=${4:-16} local_dp=${5:-8} api_servers=${6:-8}
check_number RPC_PORT "$rpc_port" 1 65535
check_number TOTAL_DP "$total_dp" 1 65536
check_number LOCAL_DP "$local_dp" 1 "$total_dp"
check_number API_SERVERS "$api_servers" 1 4096
export VLLM_ALL2ALL_BACKEND="${VLLM_ALL2ALL_BACKEND:-allgather_reducescatter}"
program=$(find_program)
choose_interface "$node1_ip"

cat << BOX
=============== Expert parallel: first node ===============
Role       answers requests, ranks 0 to $((local_dp - 1)) of $total_dp
Model      $model
Exchange   $VLLM_ALL2ALL_BACKEND
Meeting    $node1_ip:$rpc_port, over $interface
===========================================================
BOX
exec "$program" serve "$model" --tensor-parallel-size 1 --enable-expert-parallel \
  --data-parallel-size "$total_dp" --data-parallel-size-local "$local_dp" \
  --data-parallel-address "$node1_ip" --data-parallel-rpc-port "$rpc_port" \
  --api-server-count="$api_servers" --trust-remote-code ${CADRE_ARGS:-}
