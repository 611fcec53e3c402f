#pragma once
// `cadre plan`: what a deployment on so many hosts would take, from config.json alone.
//
// All sizes come from PlanMemory (model_setup.h), the code that a start plans with: here it is only asked for
// other hosts, ranks and settings than those of this machine. Nothing is computed a second time.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "config/command_options.h"
#include "deploy/model_setup.h"
#include "deploy/plan_layout.h"

namespace cadre::deploy {

/// One layout, worked out for the host whose ranks hold most.
struct LayoutPlan {
  Layout layout;
  config::EngineOptions options;  ///< of the first host
  ModelSetup setup;               ///< `memory_input` holds the sizes whether they fit or not
  Status fits;                    ///< kResourceExhausted: why not
  int num_hosts = 1;

  /// Sequences of max_model_len over all hosts.
  double Concurrency() const;
  /// What a host needs: everything, and as many sequences on each replica as the wanted ones ask for.
  int64_t NeededHostBytes(std::optional<int64_t> concurrency) const;
};

/// Something that would help, with its number.
struct Remedy {
  std::string name;  ///< "fp8", "fp8_hosts", "hosts", "replicas", "context", "utilization", "steps", "memory"
  std::string flags;   ///< what to add or change; "" where it is none of this program's flags
  std::string text;    ///< a sentence
  bool fits = false;   ///< it is enough by itself
  int64_t number = 0;  ///< hosts, tokens, or bytes
};

/// What to type on one host.
struct LaunchLine {
  int host = 0;
  std::vector<std::string> words;  ///< "cadre", "serve", ...
};

struct DeploymentPlan {
  LayoutPlan chosen;
  model::WeightPlan whole;  ///< all weights, one copy
  sys::MemoryInfo host;
  std::optional<int> cores;
  std::vector<Remedy> remedies;   ///< where it does not fit
  std::vector<LaunchLine> lines;  ///< where it fits
  bool has_weights = false;       ///< MODEL is more than a config.json
};

/// Errors: those of DescribeModel, and wishes that do not fit together. That a deployment does not fit is no
/// error here: `chosen.fits` says so, and `remedies` what would help. Cost: some milliseconds a layout tried;
/// about twenty are tried where it does not fit.
Result<DeploymentPlan> PlanDeployment(const config::PlanOptions& options);

/// Plans `layout` on `num_hosts` hosts with that memory. `base` is ReadModel's. Errors: whatever is not a
/// lack of memory.
Result<LayoutPlan> TryLayout(const config::PlanOptions& options, const ModelSetup& base,
                             const sys::MemoryInfo& host, int num_hosts, const Layout& layout);

/// The layout that ChooseLayout proposes, or a variant of it that fits where it does not: without copies,
/// with tensor parallelism, with fewer ranks a host. The proposal without copies where none fits.
Result<LayoutPlan> FindLayout(const config::PlanOptions& options, const ModelSetup& base,
                              const sys::MemoryInfo& host, int num_hosts);

/// What would help `plan`, which does not fit.
Result<std::vector<Remedy>> RemediesFor(const config::PlanOptions& options, const ModelSetup& base,
                                        const sys::MemoryInfo& host, const LayoutPlan& plan);

/// a x b, at most 2^60: sizes of a config that asks for more than 63 bits stay sizes. Not negative.
int64_t Times(int64_t a, int64_t b);

/// "1.31 TB", "654 GB", "0.60 GB", "44.0 MB": thousands, as vendors and the guides count.
std::string DecimalBytes(int64_t bytes);

/// The lines for all hosts. `model` is the word for MODEL.
std::vector<LaunchLine> LaunchLinesOf(const config::PlanOptions& options, const LayoutPlan& plan);
/// Words as a shell reads them back.
std::string ShellText(const std::vector<std::string>& words);

}  // namespace cadre::deploy
