#pragma once
// What `bench serve` sends to one server, warm-up and measured load, and what came of it.
#include "app/load_generator.h"
#include "app/random_prompts.h"
#include "app/serve_target.h"

namespace cadre::app {

class ServeLoad {
 public:
  /// Both must outlive it.
  ServeLoad(const config::BenchServeOptions& options, ServeTarget& target);

  /// Sends --num-warmups requests. Errors: kUnavailable with the reason of the first that failed.
  Status WarmUp();
  /// Sends --num-prompts requests and waits for their ends.
  LoadResult Measure();

 private:
  LoadOptions Options() const;
  LoadResult Send(int64_t count, uint64_t seed, const LoadOptions& load, const char* kind);

  const config::BenchServeOptions& options_;
  ServeTarget& target_;
  std::string id_prefix_;
};

/// The long prompts of the flags.
LongPrompts LongPromptsOf(const config::BenchServeOptions& options);

/// Whether all prompts of the flags fit into memory. Errors: kInvalidArgument.
Status CheckLoad(const config::BenchServeOptions& options);

/// Logs the first few reasons why requests have failed.
void ShowErrors(const LoadResult& load);

}  // namespace cadre::app
