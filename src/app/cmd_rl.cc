// cadre rl, cadre inference: prime-rl's TOML -> processes of this program, watched.
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "app/run.h"
#include "config/rl.h"
#include "config/toml_file.h"
#include "deploy/signals.h"
#include "deploy/supervisor.h"
#include "sys/cpu.h"
#include "sys/process.h"
#include "sys/sockets.h"

namespace cadre::app {
namespace {

bool PortIsFree(const std::string& host, int port) {
  const bool all = host == "0.0.0.0" || host == "::";
  return sys::ListenTcp(all ? "" : host, static_cast<uint16_t>(port)).has_value();
}

std::string FindProgram(const config::Environment& env, const std::string& name) {
  if (name.find('/') != name.npos) return access(name.c_str(), X_OK) == 0 ? name : "";
  std::string_view path = config::Get(env, "PATH");
  while (!path.empty()) {
    const size_t end = std::min(path.find(':'), path.size());
    const std::string file = Format("{}/{}", path.substr(0, end), name);
    if (end > 0 && access(file.c_str(), X_OK) == 0 && std::filesystem::is_regular_file(file)) return file;
    path.remove_prefix(std::min(end + 1, path.size()));
  }
  return "";
}

config::RlMachine ThisMachine(const config::Environment& env) {
  config::RlMachine machine{
      .cpus = sys::OneCpuPerCore(sys::AllowedCpus()),
      .port_is_free = PortIsFree,
      .find_program = [env](const std::string& name) { return FindProgram(env, name); }};
  const auto usable = static_cast<size_t>(sys::UsableCpus());
  // Under a quota there is no telling which CPUs: one that can run fewer at once than it sees maps none.
  machine.cpus.resize(std::min(machine.cpus.size(), usable));
  return machine;
}

// A word as a shell reads it back.
std::string Quoted(const std::string& word) {
  const auto plain = [](unsigned char c) {
    return std::isalnum(c) || std::strchr("_-./:=,@%+", c) != nullptr;
  };
  if (!word.empty() && std::ranges::all_of(word, plain)) return word;
  std::string text;
  for (const char c : word) text += c == '\'' ? std::string_view("'\\''") : std::string_view(&c, 1);
  return Format("'{}'", text);
}

std::string CommandLine(const config::RlProcess& process) {
  std::string line;
  for (const auto& [name, value] : process.env) line += Format("{}={} ", name, Quoted(value));
  line += process.program.empty() ? "cadre" : Quoted(process.program);
  for (const std::string& word : process.args) line += Format(" {}", Quoted(word));
  return line;
}

Status WriteFile(const std::filesystem::path& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text;
  file.close();
  if (file) return {};
  return Fail(Code::kUnavailable, "cannot write '{}': {}", path.string(), std::strerror(errno));
}

Status MakeFolder(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error)
    return Fail(Code::kUnavailable, "cannot make the folder '{}': {}", path.string(), error.message());
  return {};
}

// NAME.toml for each process that has a part of the configuration, NAME.sh with the line of each.
Status Dump(const config::RlOptions& options, const std::filesystem::path& folder) {
  CADRE_TRY(MakeFolder(folder));
  for (const config::RlProcess& process : options.processes) {
    if (!process.absent) CADRE_TRY(WriteFile(folder / (process.name + ".sh"), CommandLine(process) + "\n"));
    if (process.resolved.is_null()) continue;
    CADRE_TRY(WriteFile(folder / (process.name + ".toml"), config::TomlText(process.resolved)));
    LogInfo("wrote {}", (folder / (process.name + ".toml")).string());
  }
  return {};
}

void Show(const config::RlOptions& options) {
  for (const config::RlProcess& process : options.processes) {
    if (process.absent) continue;
    std::printf("# %s%s%s\n%s\n", process.title.c_str(), process.means.empty() ? "" : ": ",
                process.means.c_str(), CommandLine(process).c_str());
  }
}

// GET /health says 200. With a router, ?require=all: every worker is there.
bool IsHealthy(const std::string& host, int port) {
  const TimePoint deadline = Now() + std::chrono::seconds(1);
  const bool bracketed = host.starts_with('[');
  auto socket = sys::ConnectTcp(bracketed ? host.substr(1, host.size() - 2) : host,
                                static_cast<uint16_t>(port), deadline);
  if (!socket) return false;
  const std::string ask =
      Format("GET /health?require=all HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", host);
  if (!sys::SendAll(socket->get(), std::as_bytes(std::span(ask)), deadline)) return false;
  char status[12] = {};  // "HTTP/1.1 200"
  if (!sys::RecvAll(socket->get(), std::as_writable_bytes(std::span(status)), deadline)) return false;
  return std::string_view(status, sizeof(status)).ends_with(" 200");
}

Result<std::vector<deploy::Supervised>> Processes(const config::RlOptions& options) {
  CADRE_ASSIGN(const std::string self, sys::ProgramPath());
  const std::filesystem::path logs = std::filesystem::path(options.output_dir) / "logs";
  if (options.write_logs) CADRE_TRY(MakeFolder(logs));
  std::vector<deploy::Supervised> all;
  for (const config::RlProcess& process : options.processes) {
    if (process.absent) continue;
    if (!process.means.empty()) LogInfo("{}: {}", process.title, process.means);
    deploy::Supervised one{
        .title = process.title, .spawn = {}, .stage = process.stage, .may_finish = process.trains};
    one.spawn.program = process.program.empty() ? self : process.program;
    one.spawn.args = process.args;
    one.spawn.env = process.env;
    one.spawn.line_prefix = Format("[{}] ", process.title);
    one.spawn.own_group = true;
    if (options.write_logs) one.spawn.log_file = (logs / (process.name + ".stdout")).string();
    all.push_back(std::move(one));
  }
  return all;
}

Status Run(const config::RlOptions& options) {
  if (options.dump_config) CADRE_TRY(Dump(options, *options.dump_config));
  if (options.dry_run || options.dump_config) {
    Show(options);
    return {};
  }
  deploy::BlockStopSignals();
  CADRE_TRY(Dump(options, std::filesystem::path(options.output_dir) / "configs"));
  CADRE_ASSIGN(const auto processes, Processes(options));
  const TimePoint start = Now();
  deploy::SupervisorOptions supervising{.stop_time = std::chrono::seconds(options.stop_seconds)};
  if (options.port != 0) {
    supervising.ready = [&] {
      if (!IsHealthy(options.host, options.port)) return false;
      LogInfo("run ready after {:.1f} s: http://{}:{}/v1 ({} process{}; SIGTERM or Ctrl-C stops all)",
              SecondsSince(start), options.host, options.port, processes.size(),
              processes.size() == 1 ? "" : "es");
      return true;
    };
  }
  return deploy::Supervise(processes, supervising);
}

int RunRl(Args args, const config::Environment& env, bool inference_only) {
  const auto parse = [&](Args words, const config::Environment& variables) {
    return config::ParseRl(words, variables, ThisMachine(variables), inference_only);
  };
  return RunParsed(parse, args, env, Run);
}

}  // namespace

int Rl(Args args, const config::Environment& env) {
  return RunRl(args, env, false);
}

int Inference(Args args, const config::Environment& env) {
  return RunRl(args, env, true);
}

}  // namespace cadre::app
