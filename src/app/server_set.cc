#include "app/server_set.h"

#include <csignal>
#include <sstream>
#include <thread>

#include "base/log.h"
#include "config/value.h"
#include "sys/cpu.h"
#include "sys/sockets.h"

namespace cadre::app {
namespace {

constexpr auto kStopTime = std::chrono::seconds(20);
constexpr const char* kHost = "127.0.0.1";

PlannedServer Serve(const config::BenchServeOptions& options, std::string title, const std::vector<int>& cpus,
                    int port, const std::string& role, const std::string& more) {
  PlannedServer server{.title = std::move(title),
                       .args = {"serve", *options.model, "--host", kHost, "--port", Format("{}", port)},
                       .env = {{"VLLM_CPU_OMP_THREADS_BIND", sys::FormatCpuList(cpus)},
                               {"VLLM_NIXL_SIDE_CHANNEL_HOST", kHost}},
                       .port = port,
                       .health = "/health"};
  if (options.skip_tokenizer_init) server.args.push_back("--skip-tokenizer-init");
  if (!role.empty()) {
    server.args.insert(
        server.args.end(),
        {"--kv-transfer-config", Format(R"({{"kv_connector":"NixlConnector","kv_role":"{}"}})", role)});
  }
  for (const std::string* words : {&options.serve_args, &more}) {
    for (std::string& word : Words(*words)) server.args.push_back(std::move(word));
  }
  return server;
}

std::string Url(int port) {
  return Format("http://{}:{}", kHost, port);
}

std::string Tail(const sys::Child& child) {
  std::string text;
  for (const std::string& line : child.LastLines()) text += "\n  " + line;
  return text;
}

}  // namespace

std::vector<std::string> Words(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

std::string PlannedServer::CommandLine() const {
  std::string line;
  for (const auto& [name, value] : env) line += Format("{}={} ", name, value);
  line += "cadre";
  for (const std::string& word : args) {
    const bool quoted = word.find_first_of("{}\"' ") != std::string::npos;
    line += quoted ? Format(" '{}'", word) : " " + word;
  }
  return line;
}

Result<std::vector<ServerSet>> PlanServerSets(const config::BenchServeOptions& options,
                                              const std::vector<int>& cpus, const std::vector<int>& ports) {
  if (!options.model) {
    return FailParam(Code::kInvalidArgument, "--model",
                     "--pd starts servers, so --model must say which model they serve");
  }
  const auto num_cores = static_cast<int64_t>(cpus.size());
  const int64_t prefill_cores = options.prefill_cores.value_or(num_cores / 2);
  if (num_cores < 2 || prefill_cores >= num_cores) {
    return FailParam(Code::kInvalidArgument, "--prefill-cores",
                     "there are {} cores here, and a pair needs at least one for each side; prefill would "
                     "have {} (--prefill-cores)",
                     num_cores, prefill_cores);
  }
  const auto middle = cpus.begin() + prefill_cores;
  const std::vector<int> first(cpus.begin(), middle), second(middle, cpus.end());
  std::vector<ServerSet> sets(2);
  sets[0] = {.name = "one server", .servers = {Serve(options, "server", cpus, ports[0], "", "")}};
  sets[1] = {.name = "pair",
             .servers = {Serve(options, "prefill", first, ports[1], "kv_producer", options.prefill_args),
                         Serve(options, "decode", second, ports[2], "kv_consumer", options.decode_args)}};
  PlannedServer router{.title = "router",
                       .args = {"router", "--host", kHost, "--port", Format("{}", ports[3]), "--prefill",
                                Url(ports[1]), "--decode", Url(ports[2]), "--policy", "round_robin",
                                "--worker-startup-check-interval", "0.1", "--health-success-threshold", "1"},
                       .env = {},
                       .port = ports[3],
                       .health = "/health?require=all"};
  for (std::string& word : Words(options.router_args)) router.args.push_back(std::move(word));
  sets[1].servers.push_back(std::move(router));
  return sets;
}

Result<std::vector<int>> FreePorts(size_t count) {
  std::vector<sys::Fd> held;  // all at once, so that they differ
  std::vector<int> ports;
  for (size_t i = 0; i < count; ++i) {
    CADRE_ASSIGN(sys::Fd fd, sys::ListenTcp(kHost, 0));
    CADRE_ASSIGN(const uint16_t port, sys::LocalPort(fd.get()));
    ports.push_back(port);
    held.push_back(std::move(fd));
  }
  return ports;
}

Result<std::unique_ptr<RunningServers>> RunningServers::Start(const ServerSet& set, Duration patience) {
  CADRE_ASSIGN(const std::string self, sys::ProgramPath());
  std::unique_ptr<RunningServers> servers(new RunningServers);
  for (const PlannedServer& planned : set.servers) {
    LogInfo("{}: {}", planned.title, planned.CommandLine());
    Running& server = servers->running_.emplace_back(Running{planned, nullptr, nullptr});
    CADRE_ASSIGN(server.child, sys::Child::Spawn({.program = self,
                                                  .args = planned.args,
                                                  .env = planned.env,
                                                  .fds = {},
                                                  .line_prefix = {},
                                                  .pass_on = false,
                                                  .log_file = {},
                                                  .own_group = true}));
    CADRE_ASSIGN(server.client, http::Client::Create({.host = kHost, .port = planned.port}));
    CADRE_TRY(AwaitReady(server, Now() + patience));
  }
  return servers;
}

Status RunningServers::AwaitReady(Running& server, TimePoint deadline) {
  while (true) {
    const auto answer =
        server.client->Fetch({.target = server.planned.health, .idle_timeout = std::chrono::seconds(5)});
    if (answer && answer->status == 200) return {};
    if (const auto ended = server.child->Wait(Now())) {
      return Fail(Code::kUnavailable, "the {} {}; its last lines:{}", server.planned.title, ended->Describe(),
                  Tail(*server.child));
    }
    if (Now() >= deadline) {
      return Fail(
          Code::kDeadlineExceeded,
          "the {} is not ready (--ready-check-timeout-sec sets how long it may take); its last lines:{}",
          server.planned.title, Tail(*server.child));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

RunningServers::~RunningServers() {
  while (!running_.empty()) {
    Running& server = running_.back();
    if (server.child != nullptr) {
      server.child->Kill(SIGTERM);
      server.child->Wait(Now() + kStopTime);
    }
    running_.pop_back();
  }
}

std::string RunningServers::url() const {
  return Url(running_.back().planned.port);
}

double RunningServers::Metric(const std::string& name) const {
  double sum = 0;
  for (const Running& server : running_) {
    const auto answer = server.client->Fetch({.target = "/metrics", .idle_timeout = std::chrono::seconds(5)});
    if (answer && answer->status == 200) sum += SumOfMetric(answer->body, name);
  }
  return sum;
}

double SumOfMetric(std::string_view text, std::string_view name) {
  double sum = 0;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (!line.starts_with(name) || line.size() == name.size()) continue;
    if (line[name.size()] != '{' && line[name.size()] != ' ') continue;
    if (const auto value = config::ParseDouble(line.substr(line.rfind(' ') + 1))) sum += *value;
  }
  return sum;
}

}  // namespace cadre::app
