#pragma once
// `cadre rl`: prime-rl's TOML -> the processes that it asks for, on this host.
//
//   [inference]                 one `cadre serve`; with [inference.router] `cadre router` before it
//   [pd_disagg] enabled         prefill and decode instances of `cadre serve`, and `cadre router`
//   teacher_gpu_ids             one more `cadre serve`
//   [trainer], [orchestrator]   their own commands, where they are installed
//
// Nothing is started here: what a process is given is settled and checked (each `cadre serve` line by the
// parser that will read it), so that a wrong key is found before anything runs.
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "config/environment.h"
#include "config/parse.h"

namespace cadre::config {

/// What the plan must know of the machine; tests bring their own.
struct RlMachine {
  std::vector<int> cpus;  ///< one a core, no more than can run at once
  std::function<bool(const std::string& host, int port)> port_is_free;
  std::function<std::string(const std::string& name)> find_program;  ///< its path, or "" if not installed
};

struct RlProcess {
  std::string name;     ///< "prefill_inference_0": of its log and its TOML file
  std::string title;    ///< "prefill 0": in front of its lines
  std::string program;  ///< a path; empty: this program
  std::vector<std::string> args;
  std::vector<std::pair<std::string, std::string>> env;
  Json resolved;        ///< its part of the configuration; null: none
  bool trains = false;  ///< may end well; the run ends when all of these have
  bool absent = false;  ///< not installed: its part is written where files are asked for, nothing is started
  int stage = 0;        ///< servers 0, router 1, training 2: the highest is stopped first
  std::string means;    ///< "EP 2 = TP 1 x DP 2, deepep_high_throughput; rank 0 is id 0 on CPU 0, ..."
};

struct RlOptions {
  std::vector<RlProcess> processes;  ///< in the order in which they start
  std::string output_dir = "outputs";
  bool write_logs = true;  ///< output_dir/logs/NAME.stdout
  bool dry_run = false;
  std::optional<std::string> dump_config;
  std::string log_level = "info";
  int64_t stop_seconds = 60;
  std::string host = "127.0.0.1";  ///< where requests are answered, as clients here reach it
  int port = 0;                    ///< 0: nowhere
};

/// Where the resolved part of a process is written for itself to read.
std::string RlConfigPath(const RlOptions& options, const RlProcess& process);

/// Reads the words after `cadre rl`, or after `cadre inference`, whose files and words speak of [inference]
/// alone. Errors: kNotFound and kInvalidArgument with the file and line or the word, kUnsupported.
Result<Parsed<RlOptions>> ParseRl(std::span<const std::string> args, const Environment& env,
                                  const RlMachine& machine, bool inference_only);

}  // namespace cadre::config
