#pragma once
// The engine that the options ask for, ready to take requests: one rank in this process, or a process for
// each rank.
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cluster/load_board.h"
#include "config/serve_options.h"
#include "deploy/model_setup.h"
#include "engine/engine.h"
#include "sys/fd.h"

namespace cadre::deploy {

struct StartOptions {
  /// Hears which ranks of other nodes are missing while the start waits for them; may be null.
  std::function<void(const std::string& waiting_for)> on_waiting;
  /// Front processes besides this one: with any, ranks are processes even where there is only one.
  int num_fronts = 0;
  /// What ranks are started from, where this process is no `cadre` itself: the program's path, and the words
  /// that follow `rank R` (`serve MODEL flags...`). Empty: this program and its own words.
  std::string program;
  std::vector<std::string> words;
};

/// What one more front process needs: a connection to each engine, by DP rank.
using FrontLinks = std::vector<std::pair<int, sys::Fd>>;

class Deployment {
 public:
  /// Loads and starts what PrepareModel has planned. Logs the memory plan and the progress. Errors: one
  /// message naming flag, file or rank.
  static Result<std::unique_ptr<Deployment>> Start(const config::EngineOptions& options, ModelSetup setup,
                                                   const StartOptions& start = {});
  virtual ~Deployment() = default;

  /// Not on a headless node.
  virtual engine::Engine& engine() = 0;
  /// Connects one more front to all engines. With StartOptions::num_fronts; one thread at a time. Errors: a
  /// rank that is gone or, on another node, does not come by the deadline.
  virtual Result<FrontLinks> ConnectFront(TimePoint deadline) = 0;
  /// The loads of all fronts; null where this process is the only one.
  virtual std::shared_ptr<cluster::LoadBoard> board() = 0;
  /// Becomes readable when the deployment is over: a rank has died or run out of memory, another node is
  /// gone, or all ranks have ended as asked.
  virtual int ended_fd() const = 0;
  /// After that: fine, or what died, with its last log lines.
  virtual Status Outcome() const = 0;

  const ModelSetup& setup() const { return setup_; }

 protected:
  explicit Deployment(ModelSetup setup) : setup_(std::move(setup)) {}

 private:
  ModelSetup setup_;
};

}  // namespace cadre::deploy
