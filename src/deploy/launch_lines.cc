// What to type on each host.
#include <algorithm>

#include "deploy/deployment_plan.h"

namespace cadre::deploy {
namespace {

constexpr int kRpcPort = 13345;  // the guides'

using Words = std::vector<std::string>;

void Add(Words& words, std::initializer_list<std::string> more) {
  words.insert(words.end(), more);
}

void AddExchange(const Layout& layout, Words& words) {
  if (layout.prefill_backend.empty()) return;
  if (layout.prefill_backend == layout.decode_backend)
    return Add(words, {"--all2all-backend", layout.decode_backend});
  Add(words, {"--prefill-all2all-backend", layout.prefill_backend});
  Add(words, {"--decode-all2all-backend", layout.decode_backend});
}

void AddBalancing(const config::PlanOptions& options, const Layout& layout, Words& words) {
  if (!layout.eplb) return;
  words.emplace_back("--enable-eplb");
  Json config = options.eplb_config.is_object() ? options.eplb_config : Json(Json::Object());
  config.Set("num_redundant_experts", layout.redundant);
  Add(words, {"--eplb-config", config.Dump()});
}

}  // namespace

std::vector<LaunchLine> LaunchLinesOf(const config::PlanOptions& options, const LayoutPlan& plan) {
  const Layout& layout = plan.layout;
  const config::ParallelOptions& parallel = plan.options.parallel;
  Words common = {"cadre", "serve", plan.setup.location.name};
  if (layout.num_ranks() > 1) {
    Add(common, {"--tensor-parallel-size", std::to_string(layout.tp)});
    Add(common, {"--data-parallel-size", std::to_string(layout.dp)});
    if (layout.ep) common.emplace_back("--enable-expert-parallel");
  }
  AddExchange(layout, common);
  AddBalancing(options, layout, common);
  const int local = layout.ranks_per_host / layout.tp;
  if (plan.num_hosts > 1) {
    Add(common, {"--data-parallel-size-local", std::to_string(local)});
    Add(common, {"--data-parallel-address", *parallel.data_parallel_address});
    Add(common,
        {"--data-parallel-rpc-port", std::to_string(parallel.data_parallel_rpc_port.value_or(kRpcPort))});
  }
  common.insert(common.end(), options.passed_on.begin(), options.passed_on.end());
  std::vector<LaunchLine> lines;
  for (int host = 0; host < plan.num_hosts; ++host) {
    lines.push_back({.host = host, .words = common});
    if (host > 0)
      Add(lines.back().words, {"--data-parallel-start-rank", std::to_string(host * local), "--headless"});
  }
  return lines;
}

std::string ShellText(const Words& words) {
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./=:,@%+";
  std::string text;
  for (const std::string& word : words) {
    if (!text.empty()) text += ' ';
    if (!word.empty() && word.find_first_not_of(kPlain) == word.npos) {
      text += word;
      continue;
    }
    text += '\'';
    for (const char c : word) text += c == '\'' ? std::string("'\\''") : std::string(1, c);
    text += '\'';
  }
  return text;
}

}  // namespace cadre::deploy
