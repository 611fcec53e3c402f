#pragma once
// All workers: the pools that requests choose from, who comes and who goes.
//
// Requests run on the server's threads and only choose (Pick). Workers are made, resolved and let go by one
// other thread (Apply, Tend), because resolving blocks and a client must not end on the threads that it runs
// on.
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "route/policy.h"
#include "route/timer.h"
#include "route/worker.h"

namespace cadre::route {

class Fleet {
 public:
  /// Errors: those of MakePolicy.
  static Result<std::unique_ptr<Fleet>> Create(const Options& options, MetricsRegistry& metrics);

  /// Who is there from now on. New workers are probed; those that left get no further requests, and end when
  /// their last request has.
  void Apply(const std::vector<WorkerAddress>& wanted, const http::Server& server, Timer& timer);
  /// Resolves what is not resolved, and lets go who has drained. Every second or so.
  void Tend(const http::Server& server, Timer& timer);
  /// Ends all connections. After this nobody is picked.
  void Disconnect();

  bool WantsKey(Role role);
  bool WantsChain(Role role);
  /// A worker that may be chosen and is not in `tried`, and what of the prompt it is believed to hold.
  struct Picked {
    Lease lease;                  ///< empty if there is none
    double share = 0;             ///< of the prompt's beginning that is held, 0 to 1
    DigestFeed::Match said = {};  ///< what the worker has said
  };
  Picked Pick(Role role, const Facts& facts, const std::vector<const Worker*>& tried);
  /// Would Pick find one?
  bool CanPick(Role role, const std::vector<const Worker*>& tried);
  bool FinishSession(const std::string& key);

  std::vector<std::shared_ptr<Worker>> All() const;  ///< of every role, those that leave not included
  std::vector<std::shared_ptr<Worker>> Of(Role role) const;
  /// A probe now, unless one runs: the worker may have died.
  void ProbeSoon(const std::shared_ptr<Worker>& worker, Timer& timer);
  bool pairs() const { return options_.pairs; }

 private:
  struct Pool {
    std::mutex mutex;
    std::vector<std::shared_ptr<Worker>> members;  // guarded by mutex, as the policy
    std::unique_ptr<Policy> policy;
    std::vector<Candidate> Candidates(const std::vector<const Worker*>& tried) const;
  };

  static void AskHeld(std::vector<Candidate>& candidates, const Pool& pool, const Facts& facts,
                      std::vector<DigestFeed::Match>& said);
  explicit Fleet(const Options& options, MetricsRegistry& metrics) : options_(options), metrics_(metrics) {}
  Pool& PoolOf(Role role) { return *pools_.at(role); }
  void Probe(const std::shared_ptr<Worker>& worker, Timer& timer, bool again);

  const Options& options_;
  MetricsRegistry& metrics_;
  std::map<Role, std::unique_ptr<Pool>> pools_;  // fixed after Create
  mutable std::mutex mutex_;
  std::vector<std::shared_ptr<Worker>> workers_, leaving_;  // guarded by mutex_
};

}  // namespace cadre::route
