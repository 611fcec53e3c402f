// cadre bench eplb: what balancing gains. The same requests three times, each in a deployment of its own:
// with experts chosen evenly, with some experts hot, and with some hot and balancing on.
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "app/bench_report.h"
#include "app/run.h"
#include "sys/files.h"
#include "sys/process.h"

namespace cadre::app {
namespace {

constexpr const char* kVariants[] = {"even", "skewed", "balanced"};

struct Outcome {
  std::vector<double> tokens_per_second;  // one a repeat
  Json last;                              // the whole result of the last repeat

  double median() const {
    std::vector<double> sorted = tokens_per_second;
    std::ranges::sort(sorted);
    return sorted[sorted.size() / 2];
  }
};

// The arguments of `cadre bench throughput` among ours.
std::vector<std::string> Without(Args args, std::initializer_list<std::string_view> own) {
  std::vector<std::string> kept;
  for (size_t i = 0; i < args.size(); ++i) {
    std::string name = args[i].substr(0, args[i].find('='));
    std::ranges::replace(name, '_', '-');
    if (std::ranges::find(own, name) == own.end()) {
      kept.push_back(args[i]);
    } else if (args[i].find('=') == std::string::npos) {
      ++i;  // its value
    }
  }
  return kept;
}

Result<Json> RunVariant(const config::BenchEplbOptions& options, std::vector<std::string> args,
                        size_t variant, const std::string& folder) {
  const std::string file = folder + "/result.json";
  args.insert(args.begin(), {"bench", "throughput"});
  args.insert(args.end(), {"--json", file});
  std::string strategy = "uniform_random";
  if (variant > 0) strategy = Format("zipf:{}:{}", options.exponent, options.drift);
  if (variant == 2) args.insert(args.end(), {"--enable-eplb", "--eplb-config", options.eplb});
  CADRE_ASSIGN(const std::string program, sys::ProgramPath());
  CADRE_ASSIGN(const auto child,
               sys::Child::Spawn({.program = program,
                                  .args = args,
                                  .env = {{"VLLM_MOE_ROUTING_SIMULATION_STRATEGY", strategy}},
                                  .pass_on = false}));
  const auto ended = child->Wait(TimePoint::max());
  if (!ended || !ended->ok()) {
    std::string lines;
    for (const std::string& line : child->LastLines()) lines += "\n" + line;
    return Fail(Code::kUnavailable, "the {} run {}:{}", kVariants[variant],
                ended ? ended->Describe() : "did not end", lines);
  }
  CADRE_ASSIGN(const std::string text, sys::ReadFile(file, 64 << 20));
  return Json::Parse(text);
}

double Member(const Json& json, const char* object, const char* key) {
  const Json* inner = json.Find(object);
  const Json* value = inner == nullptr ? nullptr : inner->Find(key);
  return value == nullptr || !value->is_number() ? 0 : value->AsDouble();
}

double LargestCpu(const Json& json) {
  double most = 0, sum = 0;
  const Json* ranks = json.Find("rank_cpu_seconds");
  if (ranks == nullptr || ranks->AsArray().empty()) return 0;
  for (const Json& seconds : ranks->AsArray()) {
    most = std::max(most, seconds.AsDouble());
    sum += seconds.AsDouble();
  }
  return sum > 0 ? most * static_cast<double>(ranks->AsArray().size()) / sum : 0;
}

void Print(const std::array<Outcome, 3>& outcomes) {
  std::printf("%-10s %14s %12s %12s %14s %18s\n", "experts", "tokens/s", "of even", "of skewed",
              "balancedness", "busiest rank's CPU");
  const double even = outcomes[0].median(), skewed = outcomes[1].median();
  for (size_t v = 0; v < outcomes.size(); ++v) {
    const double speed = outcomes[v].median();
    const double balancedness = Member(outcomes[v].last, "eplb", "balancedness");
    const std::string balance = balancedness > 0 ? Format("{:.3f}", balancedness) : "-";
    std::printf("%-10s %14.1f %11.2fx %11.2fx %14s %11.2f x mean\n", kVariants[v], speed, speed / even,
                speed / skewed, balance.c_str(), LargestCpu(outcomes[v].last));
  }
  const Json& last = outcomes[2].last;
  std::printf("%.0f rebalances, %.0f experts moved (%.1f MiB), %.3f s of rank 0 spent on it\n",
              Member(last, "eplb", "num_rebalances"), Member(last, "eplb", "num_moved"),
              Member(last, "eplb", "moved_bytes") / 0x1p20, Member(last, "eplb", "moving_seconds"));
}

Status RunAll(const config::BenchEplbOptions& options, Args args) {
  CADRE_TRY(CheckWritable(options.throughput.json, "--json"));
  const std::vector<std::string> rest =
      Without(args, {"--exponent", "--drift", "--repeats", "--eplb", "--json"});
  std::string folder = std::filesystem::temp_directory_path() / "cadre-bench-XXXXXX";
  if (mkdtemp(folder.data()) == nullptr) return Fail(Code::kUnavailable, "cannot make the folder {}", folder);
  std::array<Outcome, 3> outcomes;
  Status status;
  for (int64_t repeat = 0; status && repeat < options.repeats; ++repeat) {
    for (size_t variant = 0; status && variant < outcomes.size(); ++variant) {
      LogInfo("run {} of {}, experts {}", repeat + 1, options.repeats, kVariants[variant]);
      Result<Json> result = RunVariant(options, rest, variant, folder);
      if (!result) {
        status = std::unexpected(result.error());
        break;
      }
      outcomes[variant].tokens_per_second.push_back(result->Find("tokens_per_second")->AsDouble());
      outcomes[variant].last = std::move(*result);
    }
  }
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
  CADRE_TRY(status);
  Print(outcomes);
  if (!options.throughput.json) return {};
  Json all;
  for (size_t v = 0; v < outcomes.size(); ++v) {
    Json speeds;
    for (const double speed : outcomes[v].tokens_per_second) speeds.Push(speed);
    Json both;
    both.Set("tokens_per_second", std::move(speeds));
    both.Set("last", outcomes[v].last);
    all.Set(kVariants[v], std::move(both));
  }
  return WriteJsonFile(*options.throughput.json, all);
}

}  // namespace

int BenchEplb(Args args, const config::Environment& env) {
  return RunParsed(config::ParseBenchEplb, args, env,
                   [&](const config::BenchEplbOptions& options) { return RunAll(options, args); });
}

}  // namespace cadre::app
