#pragma once
// The engine that the options ask for, ready to take requests: one rank in this process, or a process for
// each rank.
#include <memory>
#include <string>

#include "config/serve_options.h"
#include "deploy/model_setup.h"
#include "engine/engine.h"

namespace cadre::deploy {

class Deployment {
 public:
  /// Loads and starts what PrepareModel has planned. Logs the memory plan and the progress. Errors: one
  /// message naming flag, file or rank.
  static Result<std::unique_ptr<Deployment>> Start(const config::EngineOptions& options, ModelSetup setup);
  virtual ~Deployment() = default;

  virtual engine::Engine& engine() = 0;
  /// Becomes readable when a rank has died; -1 where there is only this process.
  virtual int failure_fd() const = 0;
  /// What died, with its last log lines; after failure_fd() has become readable.
  virtual Error Failure() const = 0;

  const ModelSetup& setup() const { return setup_; }

 protected:
  explicit Deployment(ModelSetup setup) : setup_(std::move(setup)) {}

 private:
  ModelSetup setup_;
};

}  // namespace cadre::deploy
