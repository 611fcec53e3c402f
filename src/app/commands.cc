#include "app/commands.h"

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "app/exit_code.h"
#include "base/log.h"
#include "config/command_line.h"
#include "config/completion.h"
#include "config/from_vllm.h"
#include "config/man_page.h"
#include "config/reference.h"

namespace cadre::app {
namespace {

constexpr const char* kVersion = "0.1.0";

constexpr const char* kUsage = R"(usage: cadre COMMAND ...

  serve MODEL                serve a model over the OpenAI HTTP API (flags as in vllm serve)
  generate MODEL             answer one prompt, or chat on the terminal
  inspect MODEL              architecture, tensors and memory plan, without reading weights
  inspect --load FILE|URL    how the load lies on experts and ranks, drawn
  bench latency MODEL        time one batch
  bench throughput MODEL     time many requests at once
  bench serve                send requests to a running server
  bench a2a                  time the exchanges between ranks of this host
  bench eplb MODEL           even, hot and balanced experts beside each other
  bench step MODEL           time steps of data and expert parallel ranks beside one process
  plan MODEL                 memory, layout and launch lines of a deployment, from config.json alone
  rl @ FILE.toml             start what prime-rl's TOML asks for: servers, a router, trainer, orchestrator
  inference @ FILE.toml      the same for the file of prime-rl's inference alone
  router URL...              pass requests on to servers, or to pairs of prefill and decode servers
  doctor                     what this machine and its network can do, and what stands in the way
  demo                       expert parallelism in one layer, drawn on the terminal
  completion SHELL           print completions for bash, zsh or fish
  man                        print the manual page
  config-reference           print docs/reference.md; with from-vllm docs/from-vllm.md
  version                    print the version

MODEL is a folder or a hub name found in the local Hugging Face cache. `cadre COMMAND --help` says more.
Called by the name vllm, the program behaves as cadre.
)";

int Print(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  return 0;
}

int Bench(Args args, const config::Environment& env) {
  const std::string what = args.empty() ? "" : args[0];
  if (what == "latency") return BenchLatency(args.subspan(1), env);
  if (what == "throughput") return BenchThroughput(args.subspan(1), env);
  if (what == "serve") return BenchServe(args.subspan(1), env);
  if (what == "a2a") return BenchA2a(args.subspan(1), env);
  if (what == "eplb") return BenchEplb(args.subspan(1), env);
  if (what == "step") return BenchStep(args.subspan(1), env);
  if (what == "--help" || what == "-h") return Print(kUsage);
  return Fail(
      {Code::kInvalidArgument,
       Format("cadre bench wants latency, throughput, serve, a2a, eplb or step as its next word, not '{}'",
              what.substr(0, 80)),
       {}});
}

int PrintReference(Args args) {
  if (args.empty()) return Print(config::ReferenceText());
  if (args[0] == "from-vllm") return Print(config::FromVllmText());
  return Fail({Code::kInvalidArgument,
               Format("cadre config-reference wants nothing or from-vllm as its next word, not '{}'",
                      args[0].substr(0, 80)),
               {}});
}

int Completion(Args args) {
  auto text = config::CompletionText(args.empty() ? "" : args[0]);
  return text ? Print(*text) : Fail(text.error());
}

/// The commands that somebody who mistyped may have meant.
std::string Nearest(const std::string& word) {
  for (const char* name : {"serve", "generate", "inspect", "bench", "plan", "router", "rl", "inference",
                           "doctor", "demo", "completion", "man", "config-reference", "version", "help"}) {
    if (config::EditDistance(word.substr(0, 40), name) <= 2) return Format("; did you mean {}?", name);
  }
  return "; cadre help lists the commands";
}

}  // namespace

void StartLog(const std::string& level, bool color, std::span<const config::Notice> notices) {
  const auto parsed = ParseLogLevel(level);
  ConfigureLog(parsed.value_or(LogLevel::kInfo), "", color);
  for (const config::Notice& notice : notices)
    LogAt(notice.warning ? LogLevel::kWarning : LogLevel::kInfo, "{}", notice.text);
}

int FlushOutput() {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return 0;
  return Fail({Code::kUnavailable, Format("cannot write to standard output: {}", std::strerror(errno)), {}});
}

int RunCommand(Args args, const config::Environment& env) {
  if (args.empty()) {
    std::fputs(kUsage, stderr);
    return ExitCode(Code::kInvalidArgument);
  }
  const std::string& word = args[0];
  const Args rest = args.subspan(1);
  if (word == "serve") return Serve(rest, env);
  if (word == "generate") return Generate(rest, env);
  if (word == "inspect") return Inspect(rest, env);
  if (word == "plan") return Plan(rest, env);
  if (word == "router") return Router(rest, env);
  if (word == "rl") return Rl(rest, env);
  if (word == "inference") return Inference(rest, env);
  if (word == "doctor") return Doctor(rest, env);
  if (word == "acceptor") return RunAcceptor(rest, env);
  if (word == "rank") return RunRank(rest, env);
  if (word == "bench") return Bench(rest, env);
  if (word == "demo") return Demo(rest, env);
  if (word == "completion") return Completion(rest);
  if (word == "man") return Print(config::ManPageText(kVersion));
  if (word == "config-reference") return PrintReference(rest);
  if (word == "version" || word == "--version" || word == "-v") return Print(Format("cadre {}\n", kVersion));
  if (word == "help" || word == "--help" || word == "-h") return Print(kUsage);
  return Fail(
      {Code::kInvalidArgument, Format("unknown command '{}'{}", word.substr(0, 80), Nearest(word)), {}});
}

}  // namespace cadre::app
