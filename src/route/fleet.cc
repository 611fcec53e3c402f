#include "route/fleet.h"

#include <algorithm>
#include <set>

#include "base/log.h"
#include "base/random.h"
#include "route/probe.h"

namespace cadre::route {
Result<std::unique_ptr<Fleet>> Fleet::Create(const Options& options, MetricsRegistry& metrics) {
  std::unique_ptr<Fleet> fleet(new Fleet(options, metrics));
  const auto add = [&](Role role, const PolicyOptions& policy) -> Status {
    auto pool = std::make_unique<Pool>();
    CADRE_ASSIGN(pool->policy, MakePolicy(policy, EntropySeed()));
    fleet->pools_[role] = std::move(pool);
    return {};
  };
  if (options.pairs) {
    CADRE_TRY(add(Role::kPrefill, options.prefill_policy));
    CADRE_TRY(add(Role::kDecode, options.decode_policy));
  } else {
    CADRE_TRY(add(Role::kPlain, options.policy));
  }
  return fleet;
}

void Fleet::Apply(const std::vector<WorkerAddress>& wanted, const http::Server& server, Timer& timer) {
  std::vector<std::shared_ptr<Worker>> kept, fresh;
  {
    const std::lock_guard lock(mutex_);
    std::map<std::string, std::shared_ptr<Worker>> present;
    for (const auto& worker : workers_) present[worker->address().Key()] = worker;
    std::set<std::string> seen;
    for (const WorkerAddress& address : wanted) {
      if (!seen.insert(address.Key()).second) continue;  // named twice
      if (auto& old = present[address.Key()]; old) {
        kept.push_back(std::exchange(old, nullptr));
      } else {
        kept.push_back(std::make_shared<Worker>(address, options_, metrics_));
        fresh.push_back(kept.back());
        LogInfo("{} {} joins", RoleName(address.role), address.Name());
      }
    }
    for (const auto& [key, worker] : present) {
      if (!worker) continue;
      worker->Leave();
      LogInfo("{} leaves; {} requests still run there", key, worker->in_flight());
      leaving_.push_back(worker);
    }
    workers_ = kept;
  }
  for (const auto& [role, pool] : pools_) {
    std::vector<std::shared_ptr<Worker>> members;
    std::vector<std::string> names;
    for (const auto& worker : kept) {
      if (worker->address().role != role) continue;
      members.push_back(worker);
      names.push_back(worker->name());
    }
    const std::lock_guard lock(pool->mutex);
    pool->members = std::move(members);
    pool->policy->Members(names);
  }
  for (const auto& worker : fresh) {
    worker->Connect(server, options_);
    timer.After(Duration::zero(), [this, worker, &timer] { Probe(worker, timer, true); });
  }
}

// `again`: one of the chain of probes that goes on while the worker is there.
void Fleet::Probe(const std::shared_ptr<Worker>& worker, Timer& timer, bool again) {
  if (worker->leaving()) return;
  const auto next = [this, worker, &timer, again] {
    if (!again) return;
    timer.After(worker->ever_healthy() ? options_.health.interval : options_.health.startup_interval,
                [this, worker, &timer] { Probe(worker, timer, true); });
  };
  if (!worker->TakeProbe()) return next();
  ProbeWorker(worker, options_, [worker, next] {
    worker->EndProbe();
    next();
  });
}

void Fleet::ProbeSoon(const std::shared_ptr<Worker>& worker, Timer& timer) {
  timer.After(Duration::zero(), [this, worker, &timer] { Probe(worker, timer, false); });
}

void Fleet::Tend(const http::Server& server, Timer& timer) {
  std::vector<std::shared_ptr<Worker>> drained;
  {
    const std::lock_guard lock(mutex_);
    std::erase_if(leaving_, [&](const std::shared_ptr<Worker>& worker) {
      if (worker->in_flight() > 0) return false;
      drained.push_back(worker);
      return true;
    });
  }
  for (const auto& worker : drained) {
    worker->Disconnect();
    LogInfo("{} {} has drained", RoleName(worker->address().role), worker->name());
  }
  for (const auto& worker : All()) {
    worker->Connect(server, options_);
    if (worker->digests() != nullptr) worker->digests()->Tend(worker, timer);
  }
}

void Fleet::Disconnect() {
  std::vector<std::shared_ptr<Worker>> all;
  {
    const std::lock_guard lock(mutex_);
    all = workers_;
    all.insert(all.end(), leaving_.begin(), leaving_.end());
  }
  for (const auto& worker : all) worker->Leave();
  for (const auto& worker : all) worker->Disconnect();
}

std::vector<Candidate> Fleet::Pool::Candidates(const std::vector<const Worker*>& tried) const {
  std::vector<Candidate> candidates;
  const TimePoint now = Now();
  for (size_t i = 0; i < members.size(); ++i) {
    if (std::ranges::find(tried, members[i].get()) != tried.end() || !members[i]->Usable(now)) continue;
    candidates.push_back({.member = i, .load = members[i]->in_flight()});
  }
  return candidates;
}

bool Fleet::WantsKey(Role role) {
  return PoolOf(role).policy->wants_key();
}
bool Fleet::WantsChain(Role role) {
  return PoolOf(role).policy->wants_chain();
}

// What each candidate has said to hold of the prompt.
void Fleet::AskHeld(std::vector<Candidate>& candidates, const Pool& pool, const Facts& facts,
                    std::vector<DigestFeed::Match>& said) {
  said.resize(candidates.size());
  if (!facts.tokens) return;
  for (size_t i = 0; i < candidates.size(); ++i) {
    const DigestFeed* feed = pool.members[candidates[i].member]->digests();
    if (feed == nullptr) continue;
    said[i] = feed->Of(*facts.tokens);
    if (said[i].tokens >= 0)
      candidates[i].share = static_cast<double>(said[i].tokens) / static_cast<double>(facts.tokens->size());
  }
}

Fleet::Picked Fleet::Pick(Role role, const Facts& facts, const std::vector<const Worker*>& tried) {
  Pool& pool = PoolOf(role);
  const std::lock_guard lock(pool.mutex);  // counts the choice before the next one is made
  auto candidates = pool.Candidates(tried);
  if (candidates.empty()) return {};
  std::vector<DigestFeed::Match> said;
  AskHeld(candidates, pool, facts, said);
  const size_t chosen = pool.policy->Pick(candidates, facts);
  const Candidate& candidate = candidates[chosen];
  Picked picked{.lease = Lease(pool.members[candidate.member]), .said = said[chosen]};
  if (candidate.share >= 0) {
    picked.share = candidate.share;
  } else if (!facts.chain.empty()) {
    picked.share = static_cast<double>(pool.policy->Held(candidate.member, facts)) /
                   static_cast<double>(facts.chain.size());
  }
  pool.policy->Sent(candidate.member, facts);
  return picked;
}

bool Fleet::CanPick(Role role, const std::vector<const Worker*>& tried) {
  Pool& pool = PoolOf(role);
  const std::lock_guard lock(pool.mutex);
  return !pool.Candidates(tried).empty();
}

bool Fleet::FinishSession(const std::string& key) {
  bool known = false;
  for (const auto& [role, pool] : pools_) {
    const std::lock_guard lock(pool->mutex);
    known |= pool->policy->Finish(key);
  }
  return known;
}

std::vector<std::shared_ptr<Worker>> Fleet::All() const {
  const std::lock_guard lock(mutex_);
  return workers_;
}
std::vector<std::shared_ptr<Worker>> Fleet::Of(Role role) const {
  auto all = All();
  std::erase_if(all, [&](const auto& worker) { return worker->address().role != role; });
  return all;
}

}  // namespace cadre::route
