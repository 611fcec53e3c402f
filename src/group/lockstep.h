#pragma once
// All ranks of an EP group take every step together: a rank without work steps with no tokens, because the
// others wait for it in the exchanges. Before each step every rank shows one word and sees all words, so all
// decide alike.
//
// When nobody has work all ranks sleep on their host's doorbell and use no CPU. No request is lost to sleep:
// a rank takes a ticket *before* it looks for work and shows it in its word; all ranks of a host sleep on the
// oldest ticket shown there. A ring after any rank's look is younger than that ticket, so nobody of that host
// falls asleep, or all wake.
//
// Over hosts there is no common bell, and none is needed: ranks that wake go on to the next Exchange, and its
// message is what wakes the other hosts. Their carriers sleep on their links as well as on the doorbell, and
// ring it for their neighbours when the message of the round after the one that all slept on arrives. A ring
// is never passed on as such, so it cannot come too early (before a rank's look of the same round, which
// would not see it) nor echo.
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/ids.h"
#include "fabric/rendezvous.h"

namespace cadre::group {

/// What a rank shows before a step. Trivial: it lies in shared memory.
struct StepWord {
  int32_t num_tokens = 0;        ///< rows that the rank will bring to the step
  int32_t num_sequences = 0;     ///< sequences in them
  uint32_t ticket = 0;           ///< Lockstep::Ticket(), taken before looking for work; of the rank's host
  bool has_work = false;         ///< requests running or waiting
  bool generates = false;        ///< some of them wait for their next token
  bool pause = false;            ///< wants all to pause
  bool stop = false;             ///< has drained and wants to end
  uint64_t order = 0;            ///< about weights, that this rank has been given and waits with; 0: none
  int64_t membership_epoch = 1;  ///< must be equal on all
};

/// Everybody's words of one step; valid until the next Exchange.
struct StepView {
  int64_t step = 0;
  std::span<const StepWord> words;  ///< by position in the group

  bool AnyWork() const;
  bool AnyGenerates() const;
  bool AllStop() const;
  bool AllPause() const;
  /// The order that all wait with; 0: there is none.
  uint64_t CommonOrder() const;
  int32_t MaxTokens() const;
  int64_t TotalTokens() const;
};

struct LockstepOptions {
  fabric::Rendezvous* rendezvous = nullptr;  ///< may be null for one rank
  std::vector<int> ranks = {};               ///< empty: all
  std::string name = "lockstep";
  bool spin = true;
  TimePoint join_deadline = TimePoint::max();
  uint32_t first_round = 1;
};

/// One per rank, for its engine thread; Ring may be called from any thread.
class Lockstep {
 public:
  static Result<std::unique_ptr<Lockstep>> Create(const LockstepOptions& options);
  ~Lockstep();

  /// Rings so far; see above.
  uint32_t Ticket() const;
  /// Wakes all ranks of all hosts: there is something to do. Costs nothing but a counter while nobody sleeps.
  void Ring();

  /// Shows `mine`, waits for all. The step number counts Exchanges from 0. Errors: kDeadlineExceeded and the
  /// abort, with the ranks at fault; kInternal if membership epochs differ.
  Result<StepView> Exchange(const StepWord& mine, TimePoint deadline);

  /// Sleeps until somebody rings after the words of `view` were made; true if somebody did, false at the
  /// deadline. All ranks of the group may call it when no word had work; what they do next together must be
  /// an Exchange, because over hosts that is what wakes the others. Errors: the abort.
  Result<bool> Sleep(const StepView& view, TimePoint deadline);

 private:
  struct State;
  explicit Lockstep(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace cadre::group
