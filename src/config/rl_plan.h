#pragma once
// What the files of `cadre rl` share: flags of `cadre serve` as a table says them, and instances made of
// them.
#include <map>
#include <string>
#include <vector>

#include "config/rl.h"
#include "config/rl_layers.h"

namespace cadre::config {

/// A flag of `cadre serve`, and the key that it comes from.
struct RlFlag {
  Json value;
  std::string path;
};
using RlFlags = std::map<std::string, RlFlag, std::less<>>;  // by the flag's name, without dashes in front

/// One `cadre serve`.
struct RlInstance {
  std::string name, title, role;
  std::vector<int64_t> ids;  ///< one a rank
  RlFlags flags;
  Json env_vars = Json(Json::Object{});
};

/// The flags that [inference] (or another `table`) means, all shapes laid over one another, with what the run
/// shares. Errors: a LoRA rank above the largest.
Result<RlFlags> CollectFlags(const RlTree& tree, const std::string& table, std::vector<Notice>& notices);
/// Lays a further table of flags over them.
void LayFlags(const RlTree& tree, const std::string& table, RlFlags& flags);

int64_t FlagInt(const RlFlags& flags, std::string_view flag, int64_t fallback);
bool FlagBool(const RlFlags& flags, std::string_view flag);
std::string FlagText(const RlFlags& flags, std::string_view flag, std::string_view fallback);

/// The instance as a process. Its line is checked by the parser of `cadre serve`; an error names the key.
Result<RlProcess> ServeProcess(const RlTree& tree, const RlInstance& instance, const Environment& env);

/// Prefill and decode instances (in this order), and the router's process behind them.
struct RlPairs {
  std::vector<RlInstance> instances;
  RlProcess router;
  std::string host;
  int port = 0;
};
/// [pd_disagg], or [inference.deployment] type "disaggregated".
bool WantsPairs(const RlTree& tree);
Result<RlPairs> PlanPairs(const RlTree& tree, const RlMachine& machine, std::vector<Notice>& notices);

/// Trainer and orchestrator; empty if they are not configured or not installed, which is said.
Result<std::vector<RlProcess>> PlanTraining(const RlTree& tree, const RlOptions& options, int64_t num_ranks,
                                            const RlMachine& machine, std::vector<Notice>& notices);

/// Which CPUs the ranks of all instances have: fills VLLM_CPU_OMP_THREADS_BIND of each process and says so in
/// `means`. One instance alone is left to bind itself.
Status MapToCpus(const std::vector<RlInstance>& instances, const Environment& env, const RlMachine& machine,
                 std::vector<RlProcess>& processes);

/// Instances share the host's memory: each gets its ranks' share of --gpu-memory-utilization.
void ShareMemory(std::vector<RlInstance>& instances);

/// Ids of a list, each once. Errors name the key.
Result<std::vector<int64_t>> RlIds(const RlTree& tree, std::string_view path);
/// "configs/debug/rl.toml:12: inference.parallel.tp", or "--inference.parallel.tp".
std::string KeyAt(const RlTree& tree, std::string_view path);
/// An address to listen on as clients on this host reach it, in URLs.
std::string ReachedAt(const std::string& host);
/// Adds variables of a table to a process.
void AddVariables(const Json& table, RlProcess& process);

}  // namespace cadre::config
