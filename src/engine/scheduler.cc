#include "engine/scheduler.h"

#include <algorithm>
#include <span>
#include <utility>

#include "base/check.h"
#include "kv/layout.h"

namespace cadre::engine {

Scheduler::Scheduler(SchedulerOptions options, int64_t num_blocks, int32_t block_size)
    : options_(options), pool_(num_blocks, block_size) {}

// Ids rise with arrival, so they decide among equals; a preempted sequence thereby goes back to where it was.
bool Scheduler::ServedBefore(const Sequence& a, const Sequence& b) const {
  if (options_.policy == SchedulingPolicy::kPriority && a.request.priority != b.request.priority) {
    return a.request.priority < b.request.priority;
  }
  return a.id < b.id;
}

void Scheduler::Add(std::unique_ptr<Sequence> sequence) {
  const auto place = std::upper_bound(waiting_.begin(), waiting_.end(), sequence,
                                      [&](const auto& a, const auto& b) { return ServedBefore(*a, *b); });
  waiting_.insert(place, std::move(sequence));
}

std::vector<ScheduledSequence> Scheduler::Schedule(int32_t token_budget) {
  int32_t budget = std::min(token_budget, options_.max_num_batched_tokens);
  std::vector<ScheduledSequence> plan;
  const int64_t preemptions = counters_.num_preemptions;
  ScheduleRunning(plan, budget);
  if (counters_.num_preemptions == preemptions) ScheduleWaiting(plan, budget);
  return plan;
}

int32_t Scheduler::ChunkOf(const Sequence& sequence, int32_t budget) const {
  int64_t chunk = sequence.num_tokens() - sequence.num_computed;
  if (const int32_t limit = options_.long_prefill_token_threshold; limit > 0)
    chunk = std::min<int64_t>(chunk, limit);
  return static_cast<int32_t>(std::min<int64_t>(chunk, budget));
}

void Scheduler::ScheduleRunning(std::vector<ScheduledSequence>& plan, int32_t& budget) {
  for (size_t i = 0; i < running_.size() && budget > 0; ++i) {
    Sequence& sequence = *running_[i];
    const int32_t chunk = ChunkOf(sequence, budget);
    if (!MakeRoom(i, chunk)) {  // it gave its own blocks back and is no longer at i
      --i;
      continue;
    }
    plan.push_back({&sequence, chunk});
    budget -= chunk;
  }
}

void Scheduler::ScheduleWaiting(std::vector<ScheduledSequence>& plan, int32_t& budget) {
  ScheduleFetched(plan, budget);
  while (budget > 0 && num_running() < options_.max_num_seqs) {
    const auto next = std::ranges::find_if(waiting_, [&](const auto& s) { return s->id < border_; });
    if (next == waiting_.end()) return;
    Sequence& sequence = **next;
    AdoptPrefix(sequence);
    if (hand_off_ != nullptr && hand_off_->WantsFetch(sequence)) {
      if (!BeginFetch(*next)) return;
      waiting_.erase(next);
      continue;
    }
    const int32_t chunk = ChunkOf(sequence, budget);
    // Without chunking a prompt waits for a step that has room for it whole, or for a step of its own.
    const bool whole = sequence.num_computed + chunk == sequence.num_tokens();
    const bool too_long = !options_.enable_chunked_prefill && !whole && !plan.empty();
    if (too_long || !Fits(sequence) || !AllocateFor(sequence, sequence.num_computed + chunk)) {
      ReleaseBlocks(sequence);
      return;
    }
    counters_.prefix_cache_queries += sequence.num_tokens();
    counters_.prefix_cache_hits += sequence.num_computed;
    budget -= chunk;
    Admit(std::move(*next), chunk, plan);
    waiting_.erase(next);
  }
}

// They have their blocks; what they need is a place in the batch.
void Scheduler::ScheduleFetched(std::vector<ScheduledSequence>& plan, int32_t& budget) {
  while (!fetched_.empty() && budget > 0 && num_running() < options_.max_num_seqs) {
    const int32_t chunk = ChunkOf(*fetched_.front(), budget);
    const bool whole = fetched_.front()->num_computed + chunk == fetched_.front()->num_tokens();
    if (!options_.enable_chunked_prefill && !whole && !plan.empty()) return;
    budget -= chunk;
    Admit(std::move(fetched_.front()), chunk, plan);
    fetched_.pop_front();
  }
}

void Scheduler::Admit(std::unique_ptr<Sequence> sequence, int32_t chunk,
                      std::vector<ScheduledSequence>& plan) {
  if (!sequence->admitted_before) {
    sequence->num_cached_tokens = sequence->num_computed;
    sequence->times.scheduled = Now();
    sequence->admitted_before = true;
  }
  if (hand_off_ != nullptr) hand_off_->Open(*sequence);
  plan.push_back({sequence.get(), chunk});
  const auto place = std::upper_bound(running_.begin(), running_.end(), sequence,
                                      [&](const auto& a, const auto& b) { return ServedBefore(*a, *b); });
  running_.insert(place, std::move(sequence));
}

// A waiting sequence gets blocks for its whole prompt, and is taken. False if there is no room.
bool Scheduler::BeginFetch(std::unique_ptr<Sequence>& waiting) {
  Sequence& sequence = *waiting;
  if (!Fits(sequence) || !AllocateFor(sequence, sequence.num_tokens())) {
    ReleaseBlocks(sequence);
    hand_off_->Touch(sequence);
    return false;
  }
  counters_.prefix_cache_queries += sequence.num_tokens();
  counters_.prefix_cache_hits += sequence.num_computed;
  hand_off_->Fetch(sequence);
  fetching_.push_back(std::move(waiting));
  return true;
}

void Scheduler::Fetched(SeqId id, int64_t num_tokens) {
  const auto it = std::ranges::find_if(fetching_, [&](const auto& s) { return s->id == id; });
  CADRE_CHECK(it != fetching_.end());
  std::unique_ptr<Sequence> sequence = std::move(*it);
  fetching_.erase(it);
  sequence->fetch_id = -1;
  sequence->fetch_done = true;
  sequence->num_computed = num_tokens;
  Publish(*sequence);
  const auto place = std::upper_bound(fetched_.begin(), fetched_.end(), sequence,
                                      [&](const auto& a, const auto& b) { return ServedBefore(*a, *b); });
  fetched_.insert(place, std::move(sequence));
}

namespace {

// The model's own prefixes go by the salt alone, as routers name them (base/prefix_hash.h). Whatever a client
// salts with, it is not the key of an adapter's: salts are UTF-8, which has no byte 0xFF.
std::string PrefixKey(const Sequence& sequence) {
  const std::string& salt = sequence.request.cache_salt;
  return sequence.adapter < 0 ? salt : Format("\xFF{} {}", sequence.adapter_version, salt);
}

}  // namespace

// Holds the cached blocks that begin the sequence. The last token is always computed, since its logits are
// wanted.
void Scheduler::AdoptPrefix(Sequence& sequence) {
  CADRE_CHECK(sequence.block_table.empty() && sequence.num_computed == 0);
  sequence.prefix_node = pool_.Root(PrefixKey(sequence));
  sequence.num_published_blocks = 0;
  if (!options_.enable_prefix_caching || sequence.wants_prompt_logprobs()) return;
  const auto match = pool_.FindPrefix(
      sequence.prefix_node, std::span<const int32_t>(sequence.tokens).first(sequence.tokens.size() - 1));
  for (const BlockId block : match.blocks) sequence.block_table.push_back(block.value);
  sequence.prefix_node = match.node;
  sequence.num_published_blocks = static_cast<int64_t>(match.blocks.size());
  sequence.num_computed = sequence.num_published_blocks * pool_.block_size();
}

// Whether all tokens known so far would find blocks now. Admitting a prompt of which only a part fits would
// soon preempt somebody.
bool Scheduler::Fits(const Sequence& sequence) const {
  const int64_t held = static_cast<int64_t>(sequence.block_table.size());
  return kv::BlocksFor(sequence.num_tokens(), pool_.block_size()) - held <= pool_.num_available();
}

bool Scheduler::AllocateFor(Sequence& sequence, int64_t num_tokens) {
  const int64_t wanted = kv::BlocksFor(num_tokens, pool_.block_size());
  const int64_t missing = wanted - static_cast<int64_t>(sequence.block_table.size());
  if (missing > pool_.num_available()) return false;
  for (int64_t i = 0; i < missing; ++i) sequence.block_table.push_back(pool_.Allocate()->value);
  return true;
}

// Allocates, taking blocks from the sequences that are served last. False if that was the sequence itself.
// Those whose blocks another engine may be reading are spared: their blocks would not come back at once.
bool Scheduler::MakeRoom(size_t running_idx, int64_t num_tokens) {
  Sequence& sequence = *running_[running_idx];
  while (!AllocateFor(sequence, sequence.num_computed + num_tokens)) {
    size_t victim = running_.size() - 1;
    while (victim > running_idx && running_[victim]->hold_open) --victim;
    Preempt(victim);
    if (victim == running_idx) return false;
  }
  return true;
}

void Scheduler::Preempt(size_t running_idx) {
  std::unique_ptr<Sequence> victim = std::move(running_[running_idx]);
  running_.erase(running_.begin() + static_cast<int64_t>(running_idx));
  if (victim->hold_open)
    hand_off_->Drop(*victim, {Code::kResourceExhausted, "its blocks were needed for other requests", {}});
  ReleaseBlocks(*victim);
  ++victim->num_preemptions;
  ++counters_.num_preemptions;
  Add(std::move(victim));
}

void Scheduler::ForgetComputed() {
  ForgetComputedIf([](const Sequence&) { return true; });
  pool_.ForgetAll();
}

void Scheduler::ForgetComputedOf(int32_t adapter) {
  ForgetComputedIf([adapter](const Sequence& sequence) { return sequence.adapter == adapter; });
}

void Scheduler::ForgetOffered(std::optional<int32_t> adapter) {
  ForgetComputedIf([adapter](const Sequence& sequence) {
    return sequence.hold_open && (!adapter || sequence.adapter == *adapter);
  });
}

template <typename Pred>
void Scheduler::ForgetComputedIf(Pred forget) {
  std::vector<std::unique_ptr<Sequence>> begin_anew;
  const auto take_from = [&](auto& list) {
    const auto taken =
        std::stable_partition(list.begin(), list.end(), [&](const auto& s) { return !forget(*s); });
    std::move(taken, list.end(), std::back_inserter(begin_anew));
    list.erase(taken, list.end());
  };
  take_from(running_);
  take_from(fetched_);
  take_from(fetching_);
  for (auto& sequence : begin_anew) {
    if (sequence->fetch_id >= 0) {
      hand_off_->LetGo(*sequence);
      sequence->fetch_id = -1;
      sequence->fetch_done = true;
    }
    if (sequence->hold_open)
      hand_off_->Drop(*sequence, {Code::kUnavailable, "what it had computed was forgotten", {}});
    ReleaseBlocks(*sequence);
    Add(std::move(sequence));
  }
}

void Scheduler::ReleaseBlocks(Sequence& sequence) {
  for (size_t i = sequence.block_table.size(); i > 0; --i)
    pool_.Release(BlockId(sequence.block_table[i - 1]));
  sequence.block_table.clear();
  sequence.num_computed = 0;
}

void Scheduler::Computed(const ScheduledSequence& scheduled) {
  Sequence& sequence = *scheduled.sequence;
  sequence.num_computed += scheduled.num_tokens;
  sequence.hold_told = sequence.hold_open;
  Publish(sequence);
}

// Whole blocks of what is computed can be found by others from now on.
void Scheduler::Publish(Sequence& sequence) {
  if (!options_.enable_prefix_caching) return;
  const int64_t block_size = pool_.block_size();
  for (; (sequence.num_published_blocks + 1) * block_size <= sequence.num_computed;
       ++sequence.num_published_blocks) {
    const auto begin = static_cast<size_t>(sequence.num_published_blocks * block_size);
    const auto tokens =
        std::span<const int32_t>(sequence.tokens).subspan(begin, static_cast<size_t>(block_size));
    const BlockId block(sequence.block_table[static_cast<size_t>(sequence.num_published_blocks)]);
    sequence.prefix_node = pool_.Publish(sequence.prefix_node, tokens, block);
  }
}

std::unique_ptr<Sequence> Scheduler::Remove(SeqId id) {
  const auto has_id = [&](const auto& sequence) { return sequence->id == id; };
  std::unique_ptr<Sequence> found;
  if (const auto it = std::ranges::find_if(running_, has_id); it != running_.end()) {
    found = std::move(*it);
    running_.erase(it);
  } else if (const auto waiting = std::ranges::find_if(waiting_, has_id); waiting != waiting_.end()) {
    found = std::move(*waiting);
    waiting_.erase(waiting);
    if (hand_off_ != nullptr) hand_off_->Reject(*found);
  } else if (const auto fetched = std::ranges::find_if(fetched_, has_id); fetched != fetched_.end()) {
    found = std::move(*fetched);
    fetched_.erase(fetched);
  } else if (const auto it2 = std::ranges::find_if(fetching_, has_id); it2 != fetching_.end()) {
    found = std::move(*it2);
    fetching_.erase(it2);
    hand_off_->LetGo(*found);
  }
  if (!found) return nullptr;
  if (found->hold_open) hand_off_->Drop(*found, {Code::kCancelled, "the request has ended", {}});
  ReleaseBlocks(*found);
  return found;
}

std::vector<Sequence*> Scheduler::All() const {
  std::vector<Sequence*> all;
  for (const auto& sequence : running_) all.push_back(sequence.get());
  for (const auto& sequence : fetched_) all.push_back(sequence.get());
  for (const auto& sequence : fetching_) all.push_back(sequence.get());
  for (const auto& sequence : waiting_) all.push_back(sequence.get());
  return all;
}

}  // namespace cadre::engine
