#include "config/launch.h"

#include <algorithm>
#include <optional>

#include "config/value.h"

namespace cadre::config {
namespace {

constexpr auto kBad = Code::kInvalidArgument;
constexpr int kRpcPort = 29550;  // vLLM's
constexpr std::string_view kLocalhost = "127.0.0.1";
constexpr size_t kMaxHosts = 65536;

// What a launcher calls its number of processes, this process's number and the first process's address.
struct Launcher {
  const char* name;
  const char* nodes;
  const char* node;
  const char* address;  // or null
  const char* port;     // or null
};
// Under torchrun GROUP_RANK counts agents (nodes) and RANK processes; with one process an agent they are
// equal.
constexpr Launcher kLaunchers[] = {
    {"LeaderWorkerSet", "LWS_GROUP_SIZE", "LWS_WORKER_INDEX", "LWS_LEADER_ADDRESS", nullptr},
    {"torchrun", "WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT"},
    {"Slurm", "SLURM_NTASKS", "SLURM_PROCID", nullptr, nullptr},
    {"Open MPI", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", nullptr, nullptr},
    {"PMIx", "PMI_SIZE", "PMI_RANK", nullptr, nullptr},
};

Result<int> Number(const Environment& env, const char* name, int least, int most) {
  auto number = ParseInt(Trim(Get(env, name)));
  if (!number || *number < least || *number > most) {
    return FailParam(kBad, name, "{} must be a number from {} to {}, not '{}'", name, least, most,
                     std::string(Get(env, name)).substr(0, 40));
  }
  return static_cast<int>(*number);
}

bool SaysNodes(const ParallelOptions& p) {
  return p.nnodes != 1 || p.node_rank != 0 || p.data_parallel_rank || p.data_parallel_start_rank ||
         p.headless || p.data_parallel_size_local;
}

// The first host of a Slurm step, which runs task 0.
Result<std::string> SlurmAddress(const Environment& env) {
  for (const char* name : {"SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"}) {
    if (Get(env, name).empty()) continue;
    auto hosts = ExpandHostList(Get(env, name));
    if (!hosts) return FailParam(kBad, name, "{}: {}", name, hosts.error().message);
    if (!hosts->empty()) return hosts->front();
  }
  return std::string();
}

// Contiguous shares of `ranks`, whole DP replicas where there are enough of them; the first nodes get what
// does not divide.
std::pair<int, int> Share(const ParallelOptions& p, int nodes, int node) {
  const int dp = p.data_parallel_size, tp = p.tensor_parallel_size;
  const int parts = dp >= nodes ? dp : dp * tp, unit = dp >= nodes ? tp : 1;
  const int base = parts / nodes, more = parts % nodes;
  return {(node * base + std::min(node, more)) * unit, (base + (node < more ? 1 : 0)) * unit};
}

void SetAddress(Launch& launch, const ParallelOptions& p) {
  launch.port = p.data_parallel_rpc_port.value_or(kRpcPort);
  if (p.data_parallel_address) {
    launch.address = *p.data_parallel_address;
    launch.address_source = p.data_parallel_address_source;
  } else if (p.nnodes > 1) {
    launch.address = p.master_addr;
    launch.address_source = p.master_source;
    launch.port = p.data_parallel_rpc_port.value_or(p.master_port);
  } else {
    launch.address = "127.0.0.1";
    launch.address_source = "default";
  }
}

Result<Launch> LaunchOfNodes(const ParallelOptions& p, Launch launch) {
  const int node = p.node_rank;
  if (node >= p.nnodes) {
    return FailParam(kBad, "--node-rank", "--node-rank {} must be below --nnodes {}", node, p.nnodes);
  }
  if (p.nnodes > launch.num_ranks) {
    return FailParam(kBad, "--nnodes",
                     "--nnodes {} is more than the {} ranks (tensor parallel {} x data parallel {})",
                     p.nnodes, launch.num_ranks, p.tensor_parallel_size, p.data_parallel_size);
  }
  if (p.data_parallel_start_rank || p.data_parallel_rank) {
    return FailParam(
        kBad, "--nnodes",
        "--nnodes and --node-rank say which ranks run here; leave out --data-parallel-start-rank and "
        "--data-parallel-rank");
  }
  std::tie(launch.first_rank, launch.num_local_ranks) = Share(p, p.nnodes, node);
  launch.first = node == 0;
  launch.headless = node > 0;
  SetAddress(launch, p);
  return launch;
}

std::optional<int> Digits(std::string_view text) {
  if (text.empty() || text.size() > 6 || text.find_first_not_of("0123456789") != text.npos) return {};
  return std::stoi(std::string(text));
}

}  // namespace

Status TakeLauncher(const Environment& env, ParallelOptions& p, std::vector<Notice>& notices) {
  const int ranks = p.expert_parallel_size();
  if (SaysNodes(p) || ranks == 1) return {};
  for (const Launcher& launcher : kLaunchers) {
    if (Get(env, launcher.nodes).empty() || Get(env, launcher.node).empty()) continue;
    CADRE_ASSIGN(const int nodes, Number(env, launcher.nodes, 1, 65536));
    if (nodes == 1) return {};
    CADRE_ASSIGN(const int node, Number(env, launcher.node, 0, nodes - 1));
    p.nnodes = nodes;
    p.node_rank = node;
    std::string address(launcher.address ? Get(env, launcher.address) : std::string_view());
    const std::string source = launcher.address ? launcher.address : launcher.name;
    if (std::string_view(launcher.name) == "Slurm") {
      CADRE_ASSIGN(address, SlurmAddress(env));
    }
    if (!p.data_parallel_address && address.empty() && p.master_addr == kLocalhost) {
      return FailParam(kBad, "--data-parallel-address",
                       "{} started {} processes ({}={}) and does not say where the first one runs; add "
                       "--data-parallel-address HOST with the host of process 0",
                       launcher.name, nodes, launcher.nodes, nodes);
    }
    if (!address.empty() && p.master_addr == kLocalhost) {
      p.master_addr = address;
      p.master_source = source;
      if (launcher.port && !Get(env, launcher.port).empty()) {
        CADRE_ASSIGN(const int port, Number(env, launcher.port, 1, 65535));
        p.master_port = port < 65535 ? port + 1 : port - 1;  // the port itself is the launcher's own store
      }
    }
    notices.push_back({false, Format("started by {}: node {} of {} ({}, {})", launcher.name, node, nodes,
                                     launcher.node, launcher.nodes)});
    return {};
  }
  return {};
}

Result<Launch> ResolveLaunch(const ParallelOptions& p) {
  Launch launch{.num_ranks = p.expert_parallel_size()};
  if (p.nnodes > 1 || p.node_rank > 0) return LaunchOfNodes(p, launch);
  const int dp = p.data_parallel_size, tp = p.tensor_parallel_size;
  const bool external = p.data_parallel_external_lb || p.data_parallel_rank;
  const int start = p.data_parallel_rank.value_or(p.data_parallel_start_rank.value_or(0));
  const int local = p.data_parallel_size_local.value_or(external ? 1 : dp - start);
  const bool hybrid =
      p.data_parallel_hybrid_lb || (p.data_parallel_start_rank && p.data_parallel_size_local && !p.headless);
  if (start + local > dp) {
    return FailParam(
        kBad, "--data-parallel-start-rank",
        "ranks {} to {} (--data-parallel-start-rank {}, --data-parallel-size-local {}) go beyond "
        "--data-parallel-size {}",
        start, start + local - 1, start, local, dp);
  }
  if (local == 0 && (start != 0 || p.data_parallel_hybrid_lb || external)) {
    return FailParam(
        kBad, "--data-parallel-size-local",
        "--data-parallel-size-local 0 is for the one node that answers for all ranks and runs none: "
        "leave out --data-parallel-start-rank, --data-parallel-hybrid-lb and "
        "--data-parallel-external-lb");
  }
  launch.first_rank = start * tp;
  launch.num_local_ranks = local * tp;
  launch.first = start == 0 && !p.headless;
  launch.headless = p.headless;
  if (external || (hybrid && local == 1 && dp > 1)) {
    launch.balancing = LoadBalancing::kExternal;
  } else if (hybrid && local < dp && local > 0) {
    launch.balancing = LoadBalancing::kHybrid;
  } else if (start > 0 && !p.headless) {
    return FailParam(kBad, "--data-parallel-start-rank",
                     "--data-parallel-start-rank {} on a node that is neither --headless nor has "
                     "--data-parallel-size-local for hybrid load balancing: add one of the two",
                     start);
  }
  SetAddress(launch, p);
  return launch;
}

Result<std::vector<std::string>> ExpandHostList(std::string_view list) {
  std::vector<std::string> hosts;
  size_t at = 0;
  while (at < list.size()) {
    const size_t open = list.find('[', at), comma = list.find(',', at);
    if (open == list.npos || comma < open) {
      hosts.emplace_back(list.substr(at, comma - at));
      at = comma == list.npos ? list.size() : comma + 1;
      continue;
    }
    const size_t close = list.find(']', open);
    if (close == list.npos) return Fail(kBad, "'{}' has no closing ]", list.substr(0, 80));
    const std::string prefix(list.substr(at, open - at));
    const size_t end = std::min(list.find(',', close), list.size());
    const std::string suffix(list.substr(close + 1, end - close - 1));
    if (suffix.find('[') != suffix.npos) {
      return Fail(kBad, "'{}' has two brackets in one name, which is not read", list.substr(0, 80));
    }
    for (const std::string_view part : SplitComma(list.substr(open + 1, close - open - 1))) {
      const size_t dash = part.find('-');
      const std::string_view low = part.substr(0, dash);
      const auto first = Digits(low), last = dash == part.npos ? first : Digits(part.substr(dash + 1));
      if (!first || !last || *last < *first)
        return Fail(kBad, "'{}' is no range of numbers", part.substr(0, 40));
      for (int i = *first; i <= *last && hosts.size() <= kMaxHosts; ++i) {
        std::string number = std::to_string(i);
        if (number.size() < low.size()) number.insert(0, low.size() - number.size(), '0');
        hosts.push_back(prefix + number + suffix);
      }
    }
    at = end + 1;
  }
  if (hosts.size() > kMaxHosts) return Fail(kBad, "more than {} hosts", kMaxHosts);
  return hosts;
}

}  // namespace cadre::config
