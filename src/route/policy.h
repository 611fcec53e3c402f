#pragma once
// Which worker gets a request. A policy sees names and loads alone, so that it can be tried without a
// network. One thread at a time.
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "route/options.h"
#include "route/prompt_tokens.h"

namespace cadre::route {

/// A worker that may be chosen.
struct Candidate {
  size_t member = 0;  ///< its place in the list that Members heard
  int64_t load = 0;   ///< requests that run there
  /// Of the prompt's beginning, how much it says to hold, 0 to 1; -1: it does not say.
  double share = -1;
};

/// What of a request decides.
struct Facts {
  std::string key;                                       ///< the session's, or of whatever stands for one
  std::vector<uint64_t> chain;                           ///< PrefixChain of the prompt
  std::shared_ptr<const PromptTokens> tokens = nullptr;  ///< null: not known
  int64_t num_tokens = 0;                                ///< of the prompt; a guess where tokens is null
};

class Policy {
 public:
  virtual ~Policy() = default;
  virtual bool wants_key() const { return false; }
  virtual bool wants_chain() const { return false; }
  /// The workers of the pool from now on, in order.
  virtual void Members(std::span<const std::string> names) { (void)names; }
  /// An index into `candidates`, which is not empty and in the order of the members.
  virtual size_t Pick(std::span<const Candidate> candidates, const Facts& facts) = 0;
  /// The request goes to this member.
  virtual void Sent(size_t member, const Facts& facts) { (void)member, (void)facts; }
  /// Leading blocks of the chain that the member is believed to hold, from what was sent there.
  virtual size_t Held(size_t member, const Facts& facts) const {
    (void)member, (void)facts;
    return 0;
  }
  /// The session has ended. True if it was known.
  virtual bool Finish(const std::string& key) {
    (void)key;
    return false;
  }
};

/// round_robin, random, power_of_two (the less loaded of two at random), least_load, consistent_hash,
/// sticky_round_robin, sticky_least_loaded, cache_aware. Errors: kInvalidArgument. `seed`: of the random
/// ones.
Result<std::unique_ptr<Policy>> MakePolicy(const PolicyOptions& options, uint64_t seed);

/// The names above, with commas between.
extern const char* const kPolicyNames;

}  // namespace cadre::route
