#pragma once
// Which ranks this process runs, where all processes of the deployment meet, and who balances requests: one
// answer from vLLM's many flags and from what launchers (Slurm, Open MPI, LeaderWorkerSet, torchrun) leave in
// the environment.
//
// A *node* here is one `cadre serve` process with a contiguous range of ranks; several may run on one
// machine.
#include <string>
#include <vector>

#include "base/error.h"
#include "config/environment.h"
#include "config/parse.h"
#include "config/serve_options.h"

namespace cadre::config {

enum class LoadBalancing {
  kInternal,  ///< the first node answers all requests and spreads them over all ranks
  kHybrid,    ///< each node answers, and spreads over its own ranks
  kExternal,  ///< each node is one DP rank with a server of its own; somebody else spreads
};

struct Launch {
  int first_rank = 0;       ///< world rank = dp_rank * tp + tp_rank
  int num_local_ranks = 1;  ///< 0: the first node, which only answers requests
  int num_ranks = 1;        ///< of all nodes
  LoadBalancing balancing = LoadBalancing::kInternal;
  bool headless = false;  ///< answers no requests
  bool first = true;      ///< runs the meeting point
  std::string address;    ///< of the meeting point
  int port = 0;
  std::string address_source;  ///< what set it: "--data-parallel-address", "SLURM_...", "default"

  /// All ranks are here, and so is who answers.
  bool one_node() const { return num_local_ranks == num_ranks && !headless; }
};

/// Fills nodes, this node's number and the address from a launcher's variables, where no flag says them; one
/// notice says so. `env` is looked at in the order LeaderWorkerSet, torchrun, Slurm, Open MPI, PMIx. Errors:
/// a launcher whose numbers make no sense.
Status TakeLauncher(const Environment& env, ParallelOptions& parallel, std::vector<Notice>& notices);

/// The answer; parallel has passed CheckParallel. Errors name the flags that do not fit together.
Result<Launch> ResolveLaunch(const ParallelOptions& parallel);

/// Slurm's list of hosts, written out: "n[01-03,7],m" is n01 n02 n03 n7 m. Errors: kInvalidArgument. At most
/// 65,536 hosts.
Result<std::vector<std::string>> ExpandHostList(std::string_view list);

}  // namespace cadre::config
