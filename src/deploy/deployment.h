#pragma once
// The engine that the options ask for, ready to take requests: one rank in this process, or a process for
// each rank.
#include <functional>
#include <memory>
#include <string>

#include "config/serve_options.h"
#include "deploy/model_setup.h"
#include "engine/engine.h"

namespace cadre::deploy {

/// Hears which ranks of other nodes are missing while the start waits for them.
using WaitingHook = std::function<void(const std::string& waiting_for)>;

class Deployment {
 public:
  /// Loads and starts what PrepareModel has planned. Logs the memory plan and the progress. Errors: one
  /// message naming flag, file or rank.
  static Result<std::unique_ptr<Deployment>> Start(const config::EngineOptions& options, ModelSetup setup,
                                                   const WaitingHook& on_waiting = nullptr);
  virtual ~Deployment() = default;

  /// Not on a headless node.
  virtual engine::Engine& engine() = 0;
  /// Becomes readable when the deployment is over: a rank has died, another node is gone, or all ranks have
  /// ended as asked; -1 where there is only this process.
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
