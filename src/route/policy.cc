#include "route/policy.h"

#include <algorithm>
#include <list>
#include <map>
#include <unordered_map>

#include "base/random.h"
#include "route/prefix.h"

namespace cadre::route {
namespace {

constexpr size_t kPointsOfMember = 160;  // on the ring; as vLLM's router
constexpr size_t kMaxSessions = 1 << 16;

// 0,1,2,0,...; who cannot be chosen is passed over.
class RoundRobin final : public Policy {
 public:
  size_t Pick(std::span<const Candidate> candidates, const Facts&) override {
    const auto at = std::ranges::find_if(candidates, [&](const Candidate& c) { return c.member >= next_; });
    const size_t chosen = at == candidates.end() ? 0 : static_cast<size_t>(at - candidates.begin());
    next_ = candidates[chosen].member + 1;
    return chosen;
  }

 private:
  size_t next_ = 0;
};

// Equal loads in turn: a fixed order would send every quiet moment's request to the first worker.
class LeastLoad final : public Policy {
 public:
  size_t Pick(std::span<const Candidate> candidates, const Facts& facts) override {
    const int64_t least = std::ranges::min(candidates, {}, &Candidate::load).load;
    std::vector<Candidate> equal;
    std::ranges::copy_if(candidates, std::back_inserter(equal),
                         [&](const Candidate& c) { return c.load == least; });
    const size_t member = equal[turns_.Pick(equal, facts)].member;
    return static_cast<size_t>(std::ranges::find(candidates, member, &Candidate::member) -
                               candidates.begin());
  }

 private:
  RoundRobin turns_;
};

class Random final : public Policy {
 public:
  Random(uint64_t seed, bool two) : seed_(seed), two_(two) {}
  size_t Pick(std::span<const Candidate> candidates, const Facts&) override {
    const size_t first = Draw(candidates.size());
    if (!two_ || candidates.size() == 1) return first;
    size_t second = Draw(candidates.size() - 1);
    if (second >= first) ++second;
    return candidates[second].load < candidates[first].load ? second : first;
  }

 private:
  size_t Draw(size_t bound) {
    return static_cast<size_t>(UniformAt(seed_, 0, count_++) * static_cast<double>(bound));
  }
  const uint64_t seed_;
  const bool two_;
  uint64_t count_ = 0;
};

// Each member has many points on a ring; a key belongs to the next point. A member that comes or goes moves
// only its own share of the keys, and the keys of one that is down for a while go to its neighbours.
class ConsistentHash final : public Policy {
 public:
  bool wants_key() const override { return true; }
  void Members(std::span<const std::string> names) override {
    ring_.clear();
    for (size_t member = 0; member < names.size(); ++member) {
      for (size_t point = 0; point < kPointsOfMember; ++point)
        ring_.emplace_back(HashText(names[member], point + 1), member);
    }
    std::ranges::sort(ring_);
  }
  size_t Pick(std::span<const Candidate> candidates, const Facts& facts) override {
    const auto start = std::ranges::lower_bound(ring_, std::pair(HashText(facts.key), size_t{0}));
    const size_t offset = static_cast<size_t>(start - ring_.begin());
    for (size_t i = 0; i < ring_.size(); ++i) {
      const size_t member = ring_[(offset + i) % ring_.size()].second;
      const auto at = std::ranges::find(candidates, member, &Candidate::member);
      if (at != candidates.end()) return static_cast<size_t>(at - candidates.begin());
    }
    return 0;
  }

 private:
  std::vector<std::pair<uint64_t, size_t>> ring_;
};

// A session stays where it began, while that worker can be chosen.
class Sticky final : public Policy {
 public:
  explicit Sticky(std::unique_ptr<Policy> first) : first_(std::move(first)) {}
  bool wants_key() const override { return true; }
  void Members(std::span<const std::string> names) override { names_.assign(names.begin(), names.end()); }
  size_t Pick(std::span<const Candidate> candidates, const Facts& facts) override {
    const auto known = places_.find(facts.key);
    if (known != places_.end()) {
      recent_.splice(recent_.begin(), recent_, known->second);
      const auto at = std::ranges::find_if(
          candidates, [&](const Candidate& c) { return names_[c.member] == known->second->second; });
      if (at != candidates.end()) return static_cast<size_t>(at - candidates.begin());
    }
    const size_t chosen = first_->Pick(candidates, facts);
    Remember(facts.key, names_[candidates[chosen].member]);
    return chosen;
  }
  bool Finish(const std::string& key) override {
    const auto known = places_.find(key);
    if (known == places_.end()) return false;
    recent_.erase(known->second);
    places_.erase(known);
    return true;
  }

 private:
  void Remember(const std::string& key, const std::string& name) {
    Finish(key);
    recent_.emplace_front(key, name);
    places_[key] = recent_.begin();
    if (places_.size() <= kMaxSessions) return;
    places_.erase(recent_.back().first);
    recent_.pop_back();
  }

  const std::unique_ptr<Policy> first_;
  std::vector<std::string> names_;
  std::list<std::pair<std::string, std::string>> recent_;  // session and worker, the last used first
  std::unordered_map<std::string, decltype(recent_)::iterator> places_;
};

// The worker that holds the longest part of the prompt, as it says itself or as has been sent there, unless
// the loads are far apart or it is too little; then the least loaded.
class CacheAware final : public Policy {
 public:
  explicit CacheAware(const PolicyOptions& options) : options_(options) {}
  bool wants_chain() const override { return true; }
  void Members(std::span<const std::string> names) override {
    std::map<std::string, std::unique_ptr<SentPrefixes>> kept;
    names_.assign(names.begin(), names.end());
    const auto blocks = static_cast<size_t>(options_.max_tree_bytes) / kPrefixBlockBytes;
    for (const std::string& name : names_) {
      auto& sent = sent_[name];
      kept[name] = sent ? std::move(sent) : std::make_unique<SentPrefixes>(std::max<size_t>(blocks, 1));
    }
    sent_ = std::move(kept);
  }
  size_t Pick(std::span<const Candidate> candidates, const Facts& facts) override {
    const auto [low, high] = std::ranges::minmax(candidates, {}, &Candidate::load);
    const bool uneven = high.load - low.load > options_.balance_abs &&
                        static_cast<double>(high.load) > static_cast<double>(low.load) * options_.balance_rel;
    if (uneven) return least_load_.Pick(candidates, facts);
    size_t best = 0;
    double best_share = 0;
    for (size_t i = 0; i < candidates.size(); ++i) {
      const double share = ShareOf(candidates[i], facts);
      if (share < best_share || (share == best_share && candidates[i].load >= candidates[best].load))
        continue;
      best = i;
      best_share = share;
    }
    return best_share > 0 && best_share > options_.cache_threshold ? best
                                                                   : least_load_.Pick(candidates, facts);
  }
  void Sent(size_t member, const Facts& facts) override { sent_.at(names_[member])->Insert(facts.chain); }
  size_t Held(size_t member, const Facts& facts) const override {
    return sent_.at(names_[member])->Match(facts.chain);
  }

 private:
  double ShareOf(const Candidate& candidate, const Facts& facts) const {
    if (candidate.share >= 0) return candidate.share;
    if (facts.chain.empty()) return 0;
    return static_cast<double>(Held(candidate.member, facts)) / static_cast<double>(facts.chain.size());
  }

  const PolicyOptions options_;
  std::vector<std::string> names_;
  std::map<std::string, std::unique_ptr<SentPrefixes>> sent_;
  LeastLoad least_load_;
};

}  // namespace

const char* const kPolicyNames =
    "cache_aware,round_robin,random,power_of_two,least_load,consistent_hash,sticky_round_robin,"
    "sticky_least_loaded";

Result<std::unique_ptr<Policy>> MakePolicy(const PolicyOptions& options, uint64_t seed) {
  using Made = std::unique_ptr<Policy>;
  if (options.name == "cache_aware") return Made(std::make_unique<CacheAware>(options));
  if (options.name == "round_robin") return Made(std::make_unique<RoundRobin>());
  if (options.name == "random") return Made(std::make_unique<Random>(seed, false));
  if (options.name == "power_of_two") return Made(std::make_unique<Random>(seed, true));
  if (options.name == "least_load") return Made(std::make_unique<LeastLoad>());
  if (options.name == "consistent_hash") return Made(std::make_unique<ConsistentHash>());
  if (options.name == "sticky_round_robin")
    return Made(std::make_unique<Sticky>(std::make_unique<RoundRobin>()));
  if (options.name == "sticky_least_loaded")
    return Made(std::make_unique<Sticky>(std::make_unique<LeastLoad>()));
  return Fail(Code::kInvalidArgument, "no policy is called '{}'; there are {}", Excerpt(options.name, 40),
              kPolicyNames);
}

}  // namespace cadre::route
