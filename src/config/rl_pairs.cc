// [pd_disagg], and [inference.deployment] type "disaggregated" -> instances of both roles and their router.
#include <algorithm>
#include <numeric>
#include <set>

#include "config/rl_plan.h"
#include "config/value.h"

namespace cadre::config {
namespace {

constexpr int64_t kMaxIds = 4096;
constexpr int64_t kMaxPort = 65535;

/// One side. `groups` are the ids of its instances.
struct Role {
  std::string name;  // "prefill"
  std::string ids_key, tp_key;
  std::vector<std::vector<int64_t>> groups;
  int64_t tp = 1;
  int64_t port = 0, kv_port = 0;  // the first ones
  std::string backend, backend_key;
  std::string overrides, env_vars;  // paths of tables
  int64_t num_ranks() const {
    return std::accumulate(groups.begin(), groups.end(), int64_t{0},
                           [](int64_t sum, const auto& group) { return sum + std::ssize(group); });
  }
};

struct Pairs {
  std::string connector, host;
  bool by_request_id = false;
  int64_t proxy_port = 8000;
  Role prefill{.name = "prefill"}, decode{.name = "decode"};
};

/// Free ports in a row; what has been handed out is not handed out again.
class Ports {
 public:
  explicit Ports(const RlMachine& machine, std::string host) : machine_(machine), host_(std::move(host)) {}
  Result<int64_t> Next(int64_t first, int64_t count, const char* what) {
    for (int64_t at = first; at + count - 1 <= kMaxPort;) {
      int64_t good = 0;
      while (good < count && Free(at + good)) ++good;
      if (good == count) {
        for (int64_t i = 0; i < count; ++i) taken_.insert(at + i);
        return at;
      }
      at += good + 1;
    }
    return Fail(Code::kUnavailable, "no {} free ports in a row from {} on for {}", count, first, what);
  }

 private:
  bool Free(int64_t port) const {
    return !taken_.contains(port) && machine_.port_is_free(host_, static_cast<int>(port));
  }
  const RlMachine& machine_;
  std::string host_;
  std::set<int64_t> taken_;
};

Status CheckPairs(const RlTree& tree) {
  const std::string at = KeyAt(tree, "pd_disagg.enabled");
  if (tree.Find("inference") == nullptr)
    return FailParam(Code::kInvalidArgument, "pd_disagg.enabled",
                     "{}: pd_disagg.enabled requires an [inference] "
                     "config; an empty table will do",
                     at);
  if (tree.Find("orchestrator.client.elastic") != nullptr)
    return FailParam(Code::kInvalidArgument, "pd_disagg.enabled",
                     "{}: pd_disagg is not supported with orchestrator.client.elastic; leave one of them out",
                     at);
  return {};
}

// Instances of a role of [pd_disagg]: all ids are one with expert parallelism, else each TP group is.
Status FillRole(const RlTree& tree, const RlFlags& flags, Role& role) {
  const std::string section = "pd_disagg.";
  role.ids_key = section + role.name + "_gpu_ids";
  role.tp_key = section + role.name + "_tp";
  CADRE_ASSIGN(const auto ids, RlIds(tree, role.ids_key));
  if (ids.empty()) {
    return FailParam(
        Code::kInvalidArgument, role.ids_key,
        "{} cannot be empty when pd_disagg.enabled is true; each id in it is one rank of {}, as in "
        "{}_gpu_ids = [0]",
        KeyAt(tree, role.ids_key), role.name, role.name);
  }
  role.tp = tree.Int(role.tp_key, FlagInt(flags, "tensor-parallel-size", 1));
  if (std::ssize(ids) % role.tp != 0) {
    return FailParam(Code::kInvalidArgument, role.ids_key,
                     "{} has {} ids; it must be a multiple of {}_tp ({})", KeyAt(tree, role.ids_key),
                     ids.size(), role.name, role.tp);
  }
  const bool whole = FlagBool(flags, "enable-expert-parallel") || FlagBool(flags, "enable-eplb");
  const int64_t size = whole ? std::ssize(ids) : role.tp;
  for (auto first = ids.begin(); first != ids.end(); first += size)
    role.groups.emplace_back(first, first + size);
  role.port = tree.Int(section + role.name + "_port", role.name == "prefill" ? 8100 : 8200);
  role.kv_port = tree.Int(section + role.name + "_kv_port", role.name == "prefill" ? 14579 : 14580);
  role.backend_key = section + role.name + "_all2all_backend";
  role.backend = tree.Text(role.backend_key, "");
  return {};
}

Status CheckDisjoint(const RlTree& tree, const Pairs& pairs) {
  std::set<int64_t> seen;
  for (const auto& group : pairs.prefill.groups) seen.insert(group.begin(), group.end());
  for (const auto& group : pairs.decode.groups) {
    for (const int64_t id : group) {
      if (!seen.contains(id)) continue;
      return FailParam(
          Code::kInvalidArgument, pairs.decode.ids_key,
          "{}: pd_disagg.prefill_gpu_ids and pd_disagg.decode_gpu_ids must not overlap; {} is in both",
          KeyAt(tree, pairs.decode.ids_key), id);
    }
  }
  if ((tree.Text("weight_broadcast.type", "") == "nccl" ||
       tree.Text("inference.weight_broadcast.type", "") == "nccl") &&
      pairs.prefill.tp != pairs.decode.tp) {
    return FailParam(
        Code::kInvalidArgument, "pd_disagg.decode_tp",
        "{}: weight_broadcast.type = \"nccl\" requires matching prefill_tp and decode_tp; they are {} "
        "and {}",
        KeyAt(tree, pairs.decode.tp_key), pairs.prefill.tp, pairs.decode.tp);
  }
  return {};
}

Status ChoosePorts(const RlTree& tree, bool automatic, const RlMachine& machine, Pairs& pairs) {
  struct Range {
    int64_t* first;
    int64_t count;
    std::string what;
  };
  std::vector<Range> ranges = {{&pairs.proxy_port, 1, "the router"}};
  for (Role* role : {&pairs.prefill, &pairs.decode})
    ranges.push_back({&role->port, std::ssize(role->groups), Format("{} servers", role->name)});
  if (pairs.by_request_id) {
    for (Role* role : {&pairs.prefill, &pairs.decode})
      ranges.push_back({&role->kv_port, role->num_ranks(), Format("{} ranks' KV", role->name)});
  }
  Ports ports(machine, pairs.host);
  std::set<int64_t> used;
  for (const Range& range : ranges) {
    if (automatic) {
      CADRE_ASSIGN(*range.first, ports.Next(*range.first, range.count, range.what.c_str()));
      continue;
    }
    for (int64_t port = *range.first; port < *range.first + range.count; ++port) {
      if (port <= kMaxPort && used.insert(port).second) continue;
      return FailParam(
          Code::kInvalidArgument, "pd_disagg.auto_ports",
          "{}: pd_disagg proxy/server/KV port ranges must all be distinct and at most {}; port {} of "
          "{} is not. auto_ports = true chooses free ones",
          KeyAt(tree, "pd_disagg.auto_ports"), kMaxPort, port, range.what);
    }
  }
  return {};
}

Result<Pairs> FromPdDisagg(const RlTree& tree, const RlFlags& flags, const RlMachine& machine) {
  CADRE_TRY(CheckPairs(tree));
  Pairs pairs;
  CADRE_TRY(FillRole(tree, flags, pairs.prefill));
  CADRE_TRY(FillRole(tree, flags, pairs.decode));
  CADRE_TRY(CheckDisjoint(tree, pairs));
  pairs.connector = tree.Text("pd_disagg.kv_connector", "P2pNcclConnector");
  pairs.by_request_id = pairs.connector == "P2pNcclConnector";
  pairs.host = tree.Text("pd_disagg.host", FlagText(flags, "host", "127.0.0.1"));
  pairs.proxy_port = tree.Int("pd_disagg.proxy_port", 8000);
  CADRE_TRY(ChoosePorts(tree, tree.Bool("pd_disagg.auto_ports", true), machine, pairs));
  return pairs;
}

// The later shape: EP over all ranks of a replica, pairs meet by NIXL, fixed back ends unless overridden.
Result<Pairs> FromDeployment(const RlTree& tree, RlFlags& flags, const RlMachine& machine) {
  const std::string section = "inference.deployment.";
  Pairs pairs;
  pairs.connector = "NixlConnector";
  pairs.host = FlagText(flags, "host", "127.0.0.1");
  pairs.proxy_port = FlagInt(flags, "port", 8000);
  const int64_t per_node = tree.Int(section + "gpus_per_node", tree.Int("deployment.gpus_per_node", 8));
  int64_t next_id = 0;
  for (Role* role : {&pairs.prefill, &pairs.decode}) {
    role->tp_key = "inference.vllm.tensor_parallel_size";
    role->tp = FlagInt(flags, "tensor-parallel-size", 1);
    const std::string nodes_key = section + role->name + "_nodes_per_replica";
    const int64_t ranks = tree.Int(nodes_key, 1) * per_node;
    const int64_t replicas = tree.Int(section + "num_" + role->name + "_replicas", 1);
    if (ranks * replicas > kMaxIds)
      return FailParam(Code::kInvalidArgument, nodes_key, "{}: {} has {} ranks; at most {} run on a host",
                       KeyAt(tree, nodes_key), role->name, ranks * replicas, kMaxIds);
    if (ranks % role->tp != 0)
      return FailParam(Code::kInvalidArgument, role->tp_key,
                       "{} is {}, but a replica of {} has {} ranks; gpus_per_node must be a multiple of it",
                       KeyAt(tree, role->tp_key), role->tp, role->name, ranks);
    for (int64_t i = 0; i < replicas; ++i) {
      std::vector<int64_t> ids(static_cast<size_t>(ranks));
      std::iota(ids.begin(), ids.end(), next_id);
      next_id += ranks;
      role->groups.push_back(std::move(ids));
    }
    role->port = tree.Int(section + role->name + "_port", role->name == "prefill" ? 8100 : 8200);
    role->overrides = section + role->name + "_vllm_overrides";
    role->env_vars = section + role->name + "_env_vars";
    role->backend = role->name == "prefill" ? "deepep_high_throughput" : "deepep_low_latency";
  }
  flags["enable-expert-parallel"] = {Json(true), ""};
  flags["enable-eplb"] = {Json(false), ""};
  CADRE_TRY(ChoosePorts(tree, true, machine, pairs));
  return pairs;
}

Json KvConfig(const Pairs& pairs, const Role& role, int64_t kv_port) {
  Json config(Json::Object{});
  config.Set("kv_connector", pairs.connector);
  if (!pairs.by_request_id) {
    config.Set("kv_role", "kv_both");
    return config;
  }
  config.Set("kv_ip", "127.0.0.1");
  config.Set("kv_port", kv_port);
  config.Set("kv_role", role.name == "prefill" ? "kv_producer" : "kv_consumer");
  return config;
}

RlInstance InstanceOf(const RlTree& tree, const RlFlags& flags, const Pairs& pairs, const Role& role,
                      size_t i, int64_t kv_port) {
  RlInstance instance{.name = Format("{}_inference_{}", role.name, i),
                      .title = Format("{} {}", role.name, i),
                      .role = role.name,
                      .ids = role.groups[i],
                      .flags = flags};
  RlFlags& own = instance.flags;
  if (!role.backend.empty()) own["all2all-backend"] = {Json(role.backend), role.backend_key};
  if (!role.overrides.empty()) LayFlags(tree, role.overrides, own);
  own["tensor-parallel-size"] = {Json(role.tp), role.tp_key};
  own["data-parallel-size"] = {Json(std::ssize(role.groups[i]) / role.tp), role.ids_key};
  own["host"] = {Json(pairs.host), tree.Find("pd_disagg.host") ? "pd_disagg.host" : "inference.server.host"};
  own["port"] = {Json(role.port + static_cast<int64_t>(i)), Format("pd_disagg.{}_port", role.name)};
  own["kv-transfer-config"] = {KvConfig(pairs, role, kv_port), "pd_disagg.kv_connector"};
  if (const Json* own_vars = tree.Find("inference.env_vars")) instance.env_vars = *own_vars;
  if (const Json* more = role.env_vars.empty() ? nullptr : tree.Find(role.env_vars)) {
    for (const auto& [name, value] : more->AsObject()) instance.env_vars.Set(name, value);
  }
  return instance;
}

/// Comma lists for the router. Where pairs meet by ports, each DP rank has a port and is a worker of its own.
struct Workers {
  std::string urls, kv_addresses;
  void Add(const std::string& url, const std::string& kv_address) {
    urls += (urls.empty() ? "" : ",") + url;
    kv_addresses += (kv_addresses.empty() ? "" : ",") + kv_address;
  }
};

}  // namespace

bool WantsPairs(const RlTree& tree) {
  return tree.Bool("pd_disagg.enabled", false) ||
         tree.Text("inference.deployment.type", "") == "disaggregated";
}

Result<RlPairs> PlanPairs(const RlTree& tree, const RlMachine& machine, std::vector<Notice>& notices) {
  CADRE_ASSIGN(RlFlags flags, CollectFlags(tree, "inference", notices));
  Pairs pairs;
  if (tree.Bool("pd_disagg.enabled", false)) {
    CADRE_ASSIGN(pairs, FromPdDisagg(tree, flags, machine));
  } else {
    CADRE_ASSIGN(pairs, FromDeployment(tree, flags, machine));
  }
  RlPairs planned;
  planned.host = ReachedAt(pairs.host);
  planned.port = static_cast<int>(pairs.proxy_port);
  planned.router = {.name = "pd_proxy", .title = "router"};
  auto& words = planned.router.args;
  words = {"router", "--host", pairs.host, "--port", Format("{}", pairs.proxy_port)};
  for (const Role* role : {&pairs.prefill, &pairs.decode}) {
    Workers workers;
    int64_t kv_port = role->kv_port;
    for (size_t i = 0; i < role->groups.size(); ++i) {
      planned.instances.push_back(InstanceOf(tree, flags, pairs, *role, i, kv_port));
      const std::string url = Format("http://{}:{}", planned.host, role->port + static_cast<int64_t>(i));
      const int64_t dp = std::ssize(role->groups[i]) / role->tp;
      for (int64_t rank = 0; rank < (pairs.by_request_id ? dp : 1); ++rank) {
        workers.Add(pairs.by_request_id && dp > 1 ? Format("{}@{}", url, rank) : url,
                    Format("127.0.0.1:{}", kv_port + rank * role->tp));
      }
      kv_port += std::ssize(role->groups[i]);
    }
    words.insert(words.end(), {Format("--{}", role->name), workers.urls});
    if (pairs.by_request_id)
      words.insert(words.end(), {Format("--{}-kv-addrs", role->name), workers.kv_addresses});
  }
  return planned;
}

}  // namespace cadre::config
