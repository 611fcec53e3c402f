# Shared by launch_vllm_node1.sh and launch_vllm_node2.sh; not run by itself.

fail() { echo "Error: $*" >&2; exit 1; }

# A whole number from $3 to $4, or an explanation.
check_number() {
  [[ "$2" =~ ^[0-9]+$ ]] && [ "$2" -ge "$3" ] && [ "$2" -le "$4" ] || fail "$1 must be a number from $3 to $4, not '$2'"
}

# The program: CADRE if set, the build beside this folder, or one in the PATH (called cadre, or vllm).
find_program() {
  local built
  built="$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../build/release/cadre"
  if [ -n "${CADRE:-}" ]; then echo "$CADRE"
  elif [ -x "$built" ]; then readlink -f "$built"
  else command -v cadre || command -v vllm || fail "cadre is not built (./quickstart --build) and not in the PATH"
  fi
}

# The interface whose address the first node has, or that leads to it; empty where iproute2 is missing.
interface_to() {
  command -v ip > /dev/null || return 0
  local route
  route=$(ip -o route get "$1" 2> /dev/null) || fail "no route to $1: is it the first node's address?"
  if [[ "$route" == *" dev lo "* ]]; then
    ip -o addr show to "$1" | awk 'NR == 1 {print $2}'
  else
    sed -n 's/.* dev \([^ ]*\).*/\1/p' <<< "$route"
  fi
}

# Sets `interface` for people and GLOO_SOCKET_IFNAME for cadre serve; one that was named by hand wins.
choose_interface() {
  interface=${NCCL_SOCKET_IFNAME:-${GLOO_SOCKET_IFNAME:-}}
  if [ -z "$interface" ]; then
    interface=$(interface_to "$1")
    [ -z "$interface" ] || export GLOO_SOCKET_IFNAME="=$interface"
  fi
  interface=${interface:-the interface that leads to the first node}
}
