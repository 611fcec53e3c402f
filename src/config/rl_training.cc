// [trainer] and [orchestrator]: what the run shares is written into their parts, and their commands are
// found.
#include <algorithm>

#include "config/rl_plan.h"
#include "config/value.h"

namespace cadre::config {
namespace {

struct Share {
  std::string_view from, to;
};

// As prime-rl does; a part's own key wins.
constexpr Share kShares[] = {
    {"model.name", "trainer.model.name"},
    {"model.name", "orchestrator.model.name"},
    {"max_steps", "trainer.max_steps"},
    {"max_steps", "orchestrator.max_steps"},
    {"seq_len", "trainer.model.seq_len"},
    {"seq_len", "orchestrator.seq_len"},
    {"max_async_level", "trainer.max_async_level"},
    {"max_async_level", "orchestrator.max_async_level"},
    {"ckpt", "trainer.ckpt"},
    {"ckpt", "orchestrator.ckpt"},
    {"wandb", "trainer.wandb"},
    {"wandb", "orchestrator.wandb"},
    {"log", "trainer.log"},
    {"log", "orchestrator.log"},
    {"tokenizer", "trainer.tokenizer"},
    {"tokenizer", "orchestrator.tokenizer"},
    {"weight_broadcast", "trainer.weight_broadcast"},
    {"weight_broadcast", "orchestrator.weight_broadcast"},
};

RlTree Shared(const RlTree& tree, const RlOptions& options, int64_t num_ranks) {
  RlTree all = tree;
  for (const Share& share : kShares) {
    const Json* value = tree.Find(share.from);
    if (value == nullptr) continue;
    RlTree over;
    over.Set(share.to, *value, "");
    if (const Json* own = tree.Find(share.to)) {
      RlTree mine;
      mine.Set(share.to, *own, "");
      over.Lay(mine);
    }
    all.Lay(over);
  }
  if (tree.Bool("bench", false)) {
    all.Set("trainer.bench", Json(true), "");
    all.Set("orchestrator.bench", Json(true), "");
  }
  if (tree.Find("trainer.output_dir") == nullptr) all.Set("trainer.output_dir", Json(options.output_dir), "");
  if (tree.Find("orchestrator.output_dir") == nullptr)
    all.Set("orchestrator.output_dir", Json(options.output_dir + "/run_default"), "");
  if (tree.Text("weight_broadcast.type", "") == "nccl" && num_ranks > 0 &&
      tree.Find("trainer.weight_broadcast.inference_world_size") == nullptr)
    all.Set("trainer.weight_broadcast.inference_world_size", Json(num_ranks), "");
  const bool moved = WantsPairs(tree) || tree.Find("orchestrator.client.base_url") == nullptr;
  if (options.port != 0 && moved && tree.Find("orchestrator.client.elastic") == nullptr) {
    all.Set("orchestrator.client.base_url",
            Json(Json::Array{Json(Format("http://{}:{}/v1", options.host, options.port))}), "");
  }
  return all;
}

std::vector<std::string> Words(const RlTree& tree, std::string_view path) {
  std::vector<std::string> words;
  if (const Json* list = tree.Find(path); list && list->is_array()) {
    for (const Json& word : list->AsArray()) words.push_back(ValueText(word));
  }
  return words;
}

std::vector<std::string> TrainerWords(const RlTree& tree, const std::vector<int64_t>& ids) {
  auto words = Words(tree, "cadre.trainer_command");
  if (!words.empty()) return words;
  return {"torchrun", "--standalone", Format("--nproc-per-node={}", std::max<size_t>(1, ids.size())), "-m",
          "prime_rl.trainer.rl.train"};
}

// A port that the client would look for the server at, in vain.
Status CheckClientPort(const RlTree& tree, const RlOptions& options) {
  constexpr std::string_view kPath = "orchestrator.client.base_url";
  const Json* urls = tree.Find(kPath);
  const bool listed = urls && urls->is_array() && !urls->AsArray().empty() && urls->AsArray()[0].is_string();
  if (options.port == 0 || WantsPairs(tree) || tree.Find("orchestrator.client.elastic") || !listed) return {};
  const std::string& url = urls->AsArray()[0].AsString();
  const size_t colon = url.find(':', url.find("://") == url.npos ? 0 : url.find("://") + 3);
  if (colon == url.npos) return {};
  const auto port = ParseInt(std::string_view(url).substr(colon + 1, url.find('/', colon) - colon - 1));
  if (!port || *port == options.port) return {};
  return FailParam(Code::kInvalidArgument, std::string(kPath),
                   "{} port ({}) does not match inference endpoint port ({}); use port {} there, or set "
                   "inference.server.port",
                   KeyAt(tree, kPath), *port, options.port, options.port);
}

}  // namespace

Result<std::vector<RlProcess>> PlanTraining(const RlTree& tree, const RlOptions& options, int64_t num_ranks,
                                            const RlMachine& machine, std::vector<Notice>& notices) {
  std::vector<RlProcess> processes;
  const bool trainer = tree.Find("trainer") != nullptr, orchestrator = tree.Find("orchestrator") != nullptr;
  CADRE_TRY(CheckClientPort(tree, options));
  if (!trainer && !orchestrator) return processes;
  std::vector<int64_t> ids = {1};
  if (tree.Find("trainer_gpu_ids")) {
    CADRE_ASSIGN(ids, RlIds(tree, "trainer_gpu_ids"));
  } else if (const int64_t count = tree.Int("deployment.num_train_gpus", 0); count > 0) {
    ids.clear();
    for (int64_t i = 0; i < count; ++i) ids.push_back(num_ranks + i);
  }
  const RlTree all = Shared(tree, options, num_ranks);
  struct Part {
    std::string name;
    bool wanted;
    std::vector<std::string> words;
  };
  auto orchestrator_words = Words(tree, "cadre.orchestrator_command");
  if (orchestrator_words.empty()) orchestrator_words = {"orchestrator"};
  std::string missing;
  for (Part& part : std::vector<Part>{{"orchestrator", orchestrator, std::move(orchestrator_words)},
                                      {"trainer", trainer, TrainerWords(tree, ids)}}) {
    if (!part.wanted) continue;
    RlProcess process{.name = part.name, .title = part.name, .program = machine.find_program(part.words[0])};
    if (process.program.empty()) missing += (missing.empty() ? "" : ", ") + part.words[0];
    process.args.assign(part.words.begin() + 1, part.words.end());
    process.trains = true;
    process.stage = 2;
    process.resolved = *all.Find(part.name);
    process.args.insert(process.args.end(), {"@", RlConfigPath(options, process)});
    process.env = {{"PYTHONUNBUFFERED", "1"}};
    if (part.name == "trainer") {
      std::string list;
      for (const int64_t id : ids) list += Format("{}{}", list.empty() ? "" : ",", id);
      process.env.emplace_back("CUDA_VISIBLE_DEVICES", list);
    }
    if (const Json* shared = tree.Find("env_vars")) AddVariables(*shared, process);
    if (const Json* own = all.Find(part.name + ".env_vars")) AddVariables(*own, process);
    processes.push_back(std::move(process));
  }
  if (missing.empty()) return processes;
  notices.push_back(
      {false,
       Format("trainer and orchestrator are not started: no command {} in PATH. This run serves inference "
              "only. Install prime-rl beside Cadre, or name commands in [cadre] trainer_command and "
              "orchestrator_command",
              missing)});
  for (RlProcess& process : processes) process.absent = true;
  return processes;
}

}  // namespace cadre::config
