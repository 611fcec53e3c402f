#include "config/rl.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "config/help.h"
#include "config/rl_keys.h"
#include "config/rl_layers.h"
#include "config/rl_plan.h"
#include "config/settings.h"
#include "config/validate.h"
#include "config/value.h"
#include "sys/cpu.h"

namespace cadre::config {
namespace {

constexpr int64_t kMaxIds = 4096;
constexpr int kBackendOffset = 100;  // of the server's port behind a router, as in prime-rl

std::string RunText(const RlTree& tree, std::string_view key, std::string_view fallback) {
  return tree.Text(key, tree.Text(Format("inference.{}", key), fallback));
}

Status TakeRun(const RlTree& tree, RlOptions& options) {
  options.output_dir = RunText(tree, "output_dir", "outputs");
  options.write_logs = tree.Bool("log.file", true);
  options.dry_run = tree.Bool("dry_run", tree.Bool("inference.dry_run", false));
  if (const std::string folder = RunText(tree, "dump_config", ""); !folder.empty())
    options.dump_config = folder;
  options.log_level = RunText(tree, "log.level", "info");
  options.stop_seconds = tree.Int("cadre.stop_seconds", 60);
  return {};
}

// How many ranks [inference] has, and the ids that stand for them.
Result<std::vector<int64_t>> InferenceIds(const RlTree& tree, RlFlags& flags, std::vector<Notice>& notices) {
  const int64_t tp = FlagInt(flags, "tensor-parallel-size", 1), dp = FlagInt(flags, "data-parallel-size", 1);
  std::vector<int64_t> ids;
  std::string path = "inference_gpu_ids";
  if (tree.Find(path) != nullptr) {
    CADRE_ASSIGN(ids, RlIds(tree, path));
  } else if (const int64_t count = tree.Int("deployment.num_infer_gpus", 0); count > 0) {
    path = "deployment.num_infer_gpus";
    ids.resize(static_cast<size_t>(count));
    std::iota(ids.begin(), ids.end(), 0);
  } else {
    if (tp * dp > kMaxIds)
      return FailParam(Code::kInvalidArgument, "inference.parallel.dp", "{} ranks; at most {} run on a host",
                       tp * dp, kMaxIds);
    ids.resize(static_cast<size_t>(tp * dp));
    std::iota(ids.begin(), ids.end(), 0);
    return ids;
  }
  if (ids.empty()) return FailParam(Code::kInvalidArgument, path, "{} is empty", KeyAt(tree, path));
  if (std::ssize(ids) % tp != 0) {
    return FailParam(
        Code::kInvalidArgument, path,
        "{}: {} ranks, but TP is {}: the number of inference GPUs must be divisible by the tensor "
        "parallel size",
        KeyAt(tree, path), ids.size(), tp);
  }
  const int64_t meant = std::ssize(ids) / tp;
  if (const auto given = flags.find("data-parallel-size"); given != flags.end() && meant != dp) {
    notices.push_back({true, Format("{} = {}: {} has {} ranks and TP is {}, so DP becomes {}",
                                    KeyAt(tree, given->second.path), dp, path, ids.size(), tp, meant)});
  }
  flags["data-parallel-size"] = {Json(meant), path};
  return ids;
}

Result<RlInstance> PlanServer(const RlTree& tree, std::vector<Notice>& notices) {
  RlInstance instance{.name = "inference", .title = "inference", .role = "inference"};
  CADRE_ASSIGN(instance.flags, CollectFlags(tree, "inference", notices));
  CADRE_ASSIGN(instance.ids, InferenceIds(tree, instance.flags, notices));
  if (const Json* own = tree.Find("inference.env_vars")) instance.env_vars = *own;
  return instance;
}

Result<RlInstance> PlanTeacher(const RlTree& tree, int64_t server_port, std::vector<Notice>& notices) {
  const std::string table = tree.Find("teacher_inference") ? "teacher_inference" : "inference";
  RlInstance teacher{.name = "teacher_inference", .title = "teacher", .role = "teacher"};
  CADRE_ASSIGN(teacher.flags, CollectFlags(tree, table, notices));
  CADRE_ASSIGN(teacher.ids, RlIds(tree, "teacher_gpu_ids"));
  const int64_t tp = FlagInt(teacher.flags, "tensor-parallel-size", 1);
  if (teacher.ids.empty() || std::ssize(teacher.ids) % tp != 0) {
    return FailParam(Code::kInvalidArgument, "teacher_gpu_ids",
                     "{} has {} ids and TP is {}: their number must be a multiple of it, and not 0",
                     KeyAt(tree, "teacher_gpu_ids"), teacher.ids.size(), tp);
  }
  teacher.flags["data-parallel-size"] = {Json(std::ssize(teacher.ids) / tp), "teacher_gpu_ids"};
  const bool own_port = table == "teacher_inference" && tree.Find("teacher_inference.server.port") != nullptr;
  if (!own_port) teacher.flags["port"] = {Json(server_port + 1), "teacher_inference.server.port"};
  if (const Json* own = tree.Find(table + ".env_vars")) teacher.env_vars = *own;
  return teacher;
}

// [inference.router]: the router takes the server's place, which moves.
std::optional<RlProcess> PlanRouter(const RlTree& tree, RlInstance& server) {
  const Json* table = tree.Find("inference.router");
  if (table == nullptr) return std::nullopt;
  const int64_t port = FlagInt(server.flags, "port", 8000);
  const std::string host = FlagText(server.flags, "host", "0.0.0.0");
  server.flags["port"] = {Json(port + kBackendOffset), "inference.server.port"};
  const bool scored = tree.Text("inference.router.type", "vllm-router") == "llm-d";
  return RlProcess{.name = "router",
                   .title = "router",
                   .args = {"router", "--host", host, "--port", Format("{}", port), "--policy",
                            tree.Text("inference.router.policy", scored ? "cache_aware" : "consistent_hash"),
                            Format("http://{}:{}", ReachedAt(host), port + kBackendOffset)}};
}

Status FinishRouter(const RlTree& tree, const Environment& env, RlProcess& router) {
  if (const Json* timeout = tree.Find("orchestrator.client.timeout"); timeout && timeout->is_number())
    router.args.insert(router.args.end(), {"--request-timeout-secs", ValueText(*timeout)});
  if (const std::string level = RunText(tree, "log.level", ""); !level.empty())
    router.args.insert(router.args.end(), {"--log-level", level == "warn" ? "warning" : level});
  if (const Json* shared = tree.Find("env_vars")) AddVariables(*shared, router);
  auto parsed = ParseRouter(std::span(router.args).subspan(1), env);
  if (parsed) return {};
  Error error = std::move(parsed).error();
  const std::string path = error.param == "--policy"                 ? "inference.router.policy"
                           : error.param == "--request-timeout-secs" ? "orchestrator.client.timeout"
                           : error.param == "--log-level"            ? "log.level"
                                                                     : "pd_disagg.proxy_port";
  error.message = Format("{}: {}", KeyAt(tree, path), error.message);
  return std::unexpected(std::move(error));
}

Status PlanServers(const RlTree& tree, const Environment& env, const RlMachine& machine, RlOptions& options,
                   std::vector<Notice>& notices, int64_t& num_ranks) {
  std::vector<RlInstance> instances;
  std::optional<RlProcess> router;
  if (WantsPairs(tree)) {
    CADRE_ASSIGN(RlPairs pairs, PlanPairs(tree, machine, notices));
    instances = std::move(pairs.instances);
    router = std::move(pairs.router);
    options.host = pairs.host;
    options.port = pairs.port;
    for (RlInstance& instance : instances) {
      // Both roles are here: they need not ask which of the host's addresses others can reach.
      if (Get(env, "VLLM_NIXL_SIDE_CHANNEL_HOST").empty() && instance.env_vars.is_object())
        instance.env_vars.Set("VLLM_NIXL_SIDE_CHANNEL_HOST", "127.0.0.1");
    }
  } else if (tree.Find("inference") != nullptr) {
    CADRE_ASSIGN(RlInstance server, PlanServer(tree, notices));
    options.host = ReachedAt(FlagText(server.flags, "host", ""));
    options.port = static_cast<int>(FlagInt(server.flags, "port", 8000));
    router = PlanRouter(tree, server);
    if (FlagBool(server.flags, "headless")) options.port = 0;
    instances.push_back(std::move(server));
  }
  for (const RlInstance& instance : instances) num_ranks += std::ssize(instance.ids);
  if (tree.Find("teacher_gpu_ids") != nullptr) {
    CADRE_ASSIGN(RlInstance teacher, PlanTeacher(tree, options.port == 0 ? 8000 : options.port, notices));
    instances.push_back(std::move(teacher));
  } else if (tree.Find("teacher_inference") != nullptr) {
    return FailParam(
        Code::kInvalidArgument, "teacher_inference",
        "{}: teacher_inference is configured but teacher_gpu_ids is not set; list its ids, one a rank",
        KeyAt(tree, "teacher_inference"));
  }
  ShareMemory(instances);
  for (const RlInstance& instance : instances) {
    CADRE_ASSIGN(RlProcess process, ServeProcess(tree, instance, env));
    options.processes.push_back(std::move(process));
  }
  CADRE_TRY(MapToCpus(instances, env, machine, options.processes));
  if (router) {
    CADRE_TRY(FinishRouter(tree, env, *router));
    router->stage = 1;
    options.processes.push_back(*std::move(router));
  }
  return {};
}

std::string HelpText(bool inference_only) {
  std::string text = inference_only ? "usage: cadre inference [@ FILE.toml]... [--key.sub "
                                      "VALUE]...\n\nprime-rl's inference server: the "
                                      "keys of [inference] at the top of the file.\n"
                                    : "usage: cadre rl @ FILE.toml [@ FILE2.toml]... [--key.sub "
                                      "VALUE]...\n\nStarts what prime-rl's TOML "
                                      "asks for: inference, or prefill and decode instances and a router; "
                                      "trainer and\norchestrator where "
                                      "they are installed. Later files and words win.\n";
  text +=
      "  --dry-run            say what would be started\n"
      "  --dump-config DIR    write one resolved TOML file a process\n";
  for (const Group& group : RlGroups()) {
    if (inference_only && group.name != "Inference") continue;
    text += Format("\n{}:\n", group.title);
    for (const Setting& row : group.settings) {
      const bool named_inside = group.name == "Inference" && !inference_only;
      text += Format("  {}{}{}{}\n      {}{}\n", named_inside ? "inference." : "", row.name,
                     row.fallback.empty() ? "" : " = ", row.fallback,
                     row.kind == Kind::kWorks      ? ""
                     : row.kind == Kind::kNoEffect ? "[no effect here] "
                                                   : "[not built] ",
                     row.text);
    }
  }
  return text + "\nBelow [inference] and [inference.vllm] every flag of cadre serve is a key too.\n";
}

}  // namespace

std::string RlConfigPath(const RlOptions& options, const RlProcess& process) {
  return Format("{}/configs/{}.toml", options.output_dir, process.name);
}

Result<std::vector<int64_t>> RlIds(const RlTree& tree, std::string_view path) {
  std::vector<int64_t> ids;
  const Json* list = tree.Find(path);
  if (list == nullptr || !list->is_array()) return ids;
  std::set<int64_t> seen;
  for (const Json& id : list->AsArray()) {
    const bool good = id.is_int() && id.AsInt() >= 0 && id.AsInt() < 65536 && seen.insert(id.AsInt()).second;
    if (!good || std::ssize(ids) == kMaxIds) {
      return FailParam(Code::kInvalidArgument, std::string(path),
                       "{} must be a list of at most {} different numbers from 0 on; {} is wrong",
                       KeyAt(tree, path), kMaxIds, Excerpt(id.Dump()));
    }
    ids.push_back(id.AsInt());
  }
  return ids;
}

void ShareMemory(std::vector<RlInstance>& instances) {
  constexpr std::string_view kFlag = "gpu-memory-utilization";
  size_t num_ranks = 0;
  for (const RlInstance& instance : instances) num_ranks += instance.ids.size();
  for (RlInstance& instance : instances) {
    if (instances.size() < 2 || instance.flags.contains("kv-cache-memory-bytes")) continue;
    const auto given = instance.flags.find(kFlag);
    const bool is_given = given != instance.flags.end() && given->second.value.is_number();
    const Json value = is_given ? given->second.value : FallbackValue(*FindSetting(Command::kServe, kFlag));
    const double share = static_cast<double>(instance.ids.size()) / static_cast<double>(num_ranks);
    // Three digits, rounded down.
    instance.flags[std::string(kFlag)] = {Json(std::floor(value.AsDouble() * share * 1000) / 1000),
                                          is_given ? given->second.path : ""};
  }
}

Status MapToCpus(const std::vector<RlInstance>& instances, const Environment& env, const RlMachine& machine,
                 std::vector<RlProcess>& processes) {
  constexpr const char* kBind = "VLLM_CPU_OMP_THREADS_BIND";
  size_t num_ranks = 0;
  for (const RlInstance& instance : instances) num_ranks += instance.ids.size();
  if (instances.size() < 2 || Get(env, kBind) == "nobind") return {};

  CpuOptions given;
  if (const auto bind = Get(env, kBind); !bind.empty()) CADRE_TRY(ParseBinding(bind, given));
  auto& cpus_of_rank = given.cpus_of_rank;
  const bool enough = machine.cpus.size() >= num_ranks;
  if (cpus_of_rank.empty() && enough) {
    for (size_t rank = 0; rank < num_ranks; ++rank) {
      const auto at = [&](size_t r) {
        return machine.cpus.begin() + static_cast<ptrdiff_t>(r * machine.cpus.size() / num_ranks);
      };
      cpus_of_rank.emplace_back(at(rank), at(rank + 1));
    }
  }
  if (!cpus_of_rank.empty() && cpus_of_rank.size() < num_ranks) {
    return FailParam(Code::kInvalidArgument, kBind, "{} lists CPUs for {} ranks, but all instances have {}",
                     kBind, cpus_of_rank.size(), num_ranks);
  }
  size_t rank = 0;
  for (size_t i = 0; i < instances.size(); ++i) {
    std::string bind, said;
    for (size_t local = 0; local < instances[i].ids.size(); ++local, ++rank) {
      const std::string where =
          cpus_of_rank.empty() ? "any CPU" : "CPU " + sys::FormatCpuList(cpus_of_rank[rank]);
      if (!cpus_of_rank.empty()) bind += (bind.empty() ? "" : "|") + sys::FormatCpuList(cpus_of_rank[rank]);
      said +=
          Format("{}rank {} is id {} on {}", said.empty() ? "" : ", ", local, instances[i].ids[local], where);
    }
    if (cpus_of_rank.empty())
      said += Format(" ({} ranks share {} cores, one thread each)", num_ranks, machine.cpus.size());
    processes[i].means += "; " + said;
    const bool own =
        std::ranges::any_of(processes[i].env, [&](const auto& one) { return one.first == kBind; });
    if (own) continue;
    processes[i].env.emplace_back(kBind, bind.empty() ? "nobind" : bind);
    if (bind.empty()) processes[i].env.emplace_back("OMP_NUM_THREADS", "1");
  }
  return {};
}

Result<Parsed<RlOptions>> ParseRl(std::span<const std::string> args, const Environment& env,
                                  const RlMachine& machine, bool inference_only) {
  Parsed<RlOptions> parsed;
  CADRE_ASSIGN(RlLayers layers, ReadRlLayers(args, env, inference_only));
  if (layers.help) {
    parsed.help = HelpText(inference_only);
    return parsed;
  }
  RlTree& tree = layers.tree;
  if (inference_only && tree.Find("inference") == nullptr) tree.Set("inference", Json(Json::Object{}), "");
  CADRE_TRY(CheckRlKeys(tree, parsed.notices));
  RlOptions& options = parsed.options;
  CADRE_TRY(TakeRun(tree, options));
  if (tree.values.AsObject().empty()) {
    return Fail(
        Code::kInvalidArgument,
        "nothing to start: name a file behind an @ of its own, as in cadre rl @ configs/debug/rl_ep.toml");
  }
  int64_t num_ranks = 0;
  CADRE_TRY(PlanServers(tree, env, machine, options, parsed.notices, num_ranks));
  if (num_ranks == 0)
    parsed.notices.push_back(
        {true, "no [inference]: no server is started; the orchestrator's client must name one"});
  CADRE_ASSIGN(auto training, PlanTraining(tree, options, num_ranks, machine, parsed.notices));
  std::ranges::move(training, std::back_inserter(options.processes));
  const bool runs = std::ranges::any_of(options.processes, [](const RlProcess& p) { return !p.absent; });
  if (!runs && !options.dry_run && !options.dump_config)
    return Fail(Code::kInvalidArgument,
                "nothing to start: there is no [inference], and no trainer is installed");
  if (options.log_level == "warn") options.log_level = "warning";
  return parsed;
}

}  // namespace cadre::config
