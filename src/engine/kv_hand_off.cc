#include "engine/kv_hand_off.h"

#include <algorithm>
#include <chrono>

#include "base/log.h"
#include "sys/memory.h"

namespace cadre::engine {
namespace {

// Of the tokens of a prompt: two requests that carry one client id and different prompts never meet.
uint64_t HashTokens(std::span<const int32_t> tokens) {
  uint64_t h = 0x9E3779B97F4A7C15 ^ tokens.size();
  for (const int32_t token : tokens) {
    h ^= static_cast<uint32_t>(token);
    h *= 0xD6E8FEB86659FD93;
    h ^= h >> 32;
  }
  return h;
}

std::string NameWithPrompt(const std::string& id, const Sequence& sequence) {
  const std::string& adapter = sequence.request.adapter;
  return Format("{}#{:016x}{}{}", id, HashTokens(sequence.request.prompt), adapter.empty() ? "" : " ",
                adapter);
}

handoff::SourceAddress AddressOf(const Sequence& sequence) {
  const KvTransfer& kv = *sequence.request.kv_transfer;
  return {.engine_id = kv.source_engine,
          .request_id = kv.by_prompt ? NameWithPrompt(kv.source_request, sequence) : kv.source_request,
          .host = kv.source_host,
          .port = kv.source_port};
}

}  // namespace

KvHandOff::KvHandOff(handoff::Agent& agent, kv::BlockPool& pool, KvHandOffOptions options)
    : agent_(agent), pool_(pool), options_(std::move(options)) {
  stats_.enabled = true;
}

std::string KvHandOff::HoldIdOf(Sequence& sequence) {
  const KvTransfer& kv = *sequence.request.kv_transfer;
  if (kv.by_prompt) return NameWithPrompt(kv.hold_id, sequence);
  // Clients retry with one id, and one instance may be both sides of a pair.
  return Format("{}-{:x}", kv.hold_id.empty() ? sequence.request.id : kv.hold_id, num_opened_++);
}

void KvHandOff::Open(Sequence& sequence) {
  const auto& kv = sequence.request.kv_transfer;
  if (!kv || !kv->hold || sequence.hold_open) return;
  sequence.hold_id = HoldIdOf(sequence);
  if (held_.contains(sequence.hold_id)) return;  // the same prompt of an earlier try: as good
  // How many tokens an answer will have nobody knows yet: at most these.
  const int64_t answer = kv->with_answer ? std::max(sequence.request.sampling.max_tokens - 1, 0) : 0;
  const int64_t num_tokens = sequence.num_prompt() + answer;
  if (const Status opened = agent_.Open(sequence.hold_id, num_tokens, sequence.adapter_id); !opened) {
    LogWarning("{}: {} will not be held for another engine: {}", options_.name, sequence.request.id,
               opened.error().message);
    return;
  }
  sequence.hold_open = true;
  sequence.hold_told = false;
}

void KvHandOff::TakeBlocks(Sequence& sequence, std::vector<int32_t>& to) const {
  to.insert(to.end(), sequence.block_table.begin(), sequence.block_table.end());
  sequence.block_table.clear();
}

void KvHandOff::Hold(Sequence& sequence) {
  if (sequence.hold_id.empty()) return;
  const TimePoint until = Now() + options_.lease;
  if (sequence.hold_open) {
    Held& held = held_[sequence.hold_id];
    TakeBlocks(sequence, held.blocks);
    held.leased = true;
  } else if (const auto before = held_.find(sequence.hold_id);
             before == held_.end() || !before->second.leased) {
    return;
  }
  sequence.hold_open = false;
  agent_.Lease(sequence.hold_id, until);
}

void KvHandOff::Drop(Sequence& sequence, const Error& why) {
  agent_.Drop(sequence.hold_id, why);
  TakeBlocks(sequence, held_[sequence.hold_id].blocks);
  sequence.hold_open = sequence.hold_told = false;
}

HeldKv KvHandOff::Describe(const Sequence& sequence) const {
  // The last token has been drawn and not been computed.
  const bool answer = sequence.request.kv_transfer->with_answer;
  const int64_t known =
      std::min(sequence.num_computed, answer ? sequence.num_tokens() : sequence.num_prompt());
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return {.engine_id = agent_.engine_id(),
          .request_id = sequence.hold_id,
          .host = agent_.host(),
          .port = agent_.port(),
          .tp_size = options_.tp_size,
          .expires_s = std::chrono::duration<double>(now + options_.lease).count(),
          .blocks = sequence.block_table,
          .tokens = {sequence.tokens.begin(), sequence.tokens.begin() + known},
          .with_answer = answer};
}

bool KvHandOff::WantsFetch(Sequence& sequence) {
  const auto& kv = sequence.request.kv_transfer;
  if (!kv || !kv->fetch || sequence.fetch_done) return false;
  const int64_t last = sequence.num_prompt() - 1;  // computed here: its logits are wanted
  const int64_t there = kv->num_tokens > 0 ? std::min(kv->num_tokens, last) : last;
  if (there > sequence.num_computed && !sequence.wants_prompt_logprobs()) return true;
  Reject(sequence);
  return false;
}

void KvHandOff::Fetch(Sequence& sequence) {
  const KvTransfer& kv = *sequence.request.kv_transfer;
  const int64_t last = sequence.num_prompt() - 1;
  const int64_t num_tokens = kv.num_tokens > 0 ? std::min(kv.num_tokens, last) : last;
  const handoff::FetchId id(next_fetch_++);
  TimePoint deadline = Now() + (kv.push ? options_.push_timeout : options_.fetch_timeout);
  if (sequence.request.deadline) deadline = std::min(deadline, *sequence.request.deadline);
  handoff::SourceAddress source = AddressOf(sequence);
  sequence.fetch_id = id.value;
  fetching_[id.value] = {.sequence = sequence.id,
                         .blocks = {},
                         .request_id = sequence.request.id,
                         .source = Format("{}:{}", source.host, source.port),
                         .first_token = sequence.num_computed,
                         .num_tokens = num_tokens};
  agent_.Fetch({.id = id,
                .source = std::move(source),
                .first_token = sequence.num_computed,
                .num_tokens = num_tokens,
                .blocks = sequence.block_table,
                .deadline = deadline,
                .adapter = sequence.adapter_id,
                .push = kv.push,
                .begun_by = kv.push ? Now() + options_.lease : TimePoint::max()});
}

void KvHandOff::LetGo(Sequence& sequence) {
  Fetching& fetching = fetching_.at(sequence.fetch_id);
  fetching.sequence = SeqId();
  TakeBlocks(sequence, fetching.blocks);
  agent_.CancelFetch(handoff::FetchId(sequence.fetch_id));
}

void KvHandOff::Reject(Sequence& sequence) {
  const auto& kv = sequence.request.kv_transfer;
  if (!kv || !kv->fetch || std::exchange(sequence.fetch_done, true)) return;
  agent_.Reject(AddressOf(sequence));
}

void KvHandOff::Touch(Sequence& sequence) {
  const auto& kv = sequence.request.kv_transfer;
  if (!kv || !kv->fetch || sequence.fetch_done || Now() - sequence.touched < kTouchInterval) return;
  sequence.touched = Now();
  agent_.Touch(AddressOf(sequence));
}

void KvHandOff::Release(std::vector<int32_t>& blocks) {
  for (size_t i = blocks.size(); i > 0; --i) pool_.Release(BlockId(blocks[i - 1]));
  blocks.clear();
}

std::vector<KvHandOff::Fetched> KvHandOff::Poll() {
  for (const handoff::EndedLease& ended : agent_.TakeEnded()) {
    const auto held = held_.find(ended.request_id);
    if (held == held_.end()) continue;
    if (ended.why == handoff::LeaseEnd::kExpired) {
      ++stats_.num_expired;
      LogWarning("{}: nobody has fetched the blocks of {} in time; they are free again", options_.name,
                 ended.request_id);
    }
    if (ended.why == handoff::LeaseEnd::kTargetLost)
      LogWarning("{}: who fetched the blocks of {} is gone; they are free again", options_.name,
                 ended.request_id);
    Release(held->second.blocks);
    held_.erase(held);
  }
  std::vector<Fetched> done;
  for (handoff::FetchResult& result : agent_.TakeFetched()) {
    const auto it = fetching_.find(result.id.value);
    if (it == fetching_.end()) continue;
    Fetching fetching = std::move(it->second);
    fetching_.erase(it);
    if (!fetching.sequence.valid()) {
      Release(fetching.blocks);
      continue;
    }
    const int64_t there = result.status
                              ? fetching.num_tokens
                              : std::clamp(result.valid_tokens, fetching.first_token, fetching.num_tokens);
    stats_.tokens_fetched += there - fetching.first_token;
    if (result.status) {
      stats_.seconds.Add(KvTransferStats::kSeconds, result.seconds);
      stats_.bytes.Add(KvTransferStats::kBytes, static_cast<double>(result.bytes));
      stats_.post_seconds.Add(KvTransferStats::kPostSeconds, result.post_seconds);
      stats_.descriptors.Add(KvTransferStats::kDescriptors, static_cast<double>(result.num_descriptors));
      LogDebug("{}: {}: {} tokens ({}) fetched from {} {} in {:.1f} ms", options_.name, fetching.request_id,
               there - fetching.first_token, sys::FormatBytes(result.bytes), fetching.source,
               result.within_host ? "through shared memory" : "over TCP", result.seconds * 1e3);
    } else {
      LogWarning("{}: {}: fetching {} tokens from {} failed after {}: {}; {}", options_.name,
                 fetching.request_id, fetching.num_tokens - fetching.first_token, fetching.source,
                 there - fetching.first_token, result.status.error().message,
                 options_.recompute ? "the rest is computed here" : "the request fails");
      if (options_.recompute) ++stats_.num_recomputed;
      if (!options_.recompute) {
        result.status = Fail(Code::kInternal,
                             "the keys and values of the prompt could not be fetched from {}: {} "
                             "(--kv-transfer-config.kv_load_failure_policy is fail)",
                             fetching.source, result.status.error().message);
      }
    }
    done.push_back({fetching.sequence, there, std::move(result.status)});
  }
  return done;
}

KvTransferStats KvHandOff::Stats() const {
  KvTransferStats stats = stats_;
  const handoff::AgentStats agent = agent_.stats();
  stats.num_fetches = agent.num_fetches;
  stats.num_failed_fetches = agent.num_failed_fetches;
  stats.bytes_fetched = agent.bytes_fetched;
  stats.bytes_sent = agent.bytes_sent;
  stats.fetch_seconds = agent.fetch_seconds;
  stats.num_failed_notifications = agent.num_failed_notifications;
  stats.num_held = static_cast<int64_t>(held_.size());
  for (const auto& [id, held] : held_) stats.held_blocks += static_cast<int64_t>(held.blocks.size());
  for (const auto& [id, fetching] : fetching_) {
    stats.num_fetching += fetching.sequence.valid();
    stats.held_blocks += static_cast<int64_t>(fetching.blocks.size());
  }
  return stats;
}

}  // namespace cadre::engine
