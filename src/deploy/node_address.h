#pragma once
// At which of this machine's addresses other nodes reach it.
#include <string>
#include <vector>

#include "base/error.h"
#include "config/serve_options.h"
#include "sys/interfaces.h"

namespace cadre::deploy {

/// VLLM_HOST_IP, else the addresses of the interfaces that NCCL_SOCKET_IFNAME, GLOO_SOCKET_IFNAME or
/// TP_SOCKET_IFNAME (in this order) names, one an interface; empty where none is set (then the interface that
/// leads to the first node is used). Names are NCCL's: a list of prefixes "eth,ens", of exact names "=eth0",
/// or of what not to use "^docker,lo"; Gloo's single name is a prefix too. Errors: kNotFound with the
/// interfaces there are.
Result<std::vector<std::string>> NodeAddresses(const config::ParallelOptions& parallel,
                                               const std::vector<sys::NetworkInterface>& interfaces);

/// "eth0 (10.0.0.1), lo (127.0.0.1)".
std::string InterfaceList(const std::vector<sys::NetworkInterface>& interfaces);

}  // namespace cadre::deploy
