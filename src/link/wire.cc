#include "link/wire.h"

#include <cstring>
#include <optional>
#include <type_traits>

namespace cadre::link {
namespace {

// One list of fields serves both directions: Visit(archive, message) calls archive(field)... for a writer or
// a reader.

class Writer {
 public:
  static constexpr bool kReads = false;
  template <typename... Fields>
  void operator()(const Fields&... fields) {
    (Write(fields), ...);
  }
  std::string TakeBytes() { return std::move(bytes_); }

 private:
  template <typename T>
  requires(std::is_arithmetic_v<T> || std::is_enum_v<T>) void Write(T value) {
    char raw[sizeof(T)];
    std::memcpy(raw, &value, sizeof(T));
    bytes_.append(raw, sizeof(T));
  }
  void Write(const std::string& text) {
    Write(static_cast<uint32_t>(text.size()));
    bytes_ += text;
  }
  void Write(TimePoint time) { Write(int64_t{time.time_since_epoch().count()}); }
  template <typename T>
  void Write(const std::optional<T>& value) {
    Write(value.has_value());
    if (value) Write(*value);
  }
  template <typename A, typename B>
  void Write(const std::pair<A, B>& pair) {
    Write(pair.first);
    Write(pair.second);
  }
  template <typename T>
  void Write(const std::vector<T>& values) {
    Write(static_cast<uint32_t>(values.size()));
    if constexpr (std::is_arithmetic_v<T>) {
      bytes_.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
    } else {
      for (const T& value : values) Write(value);
    }
  }
  template <typename T>
  requires std::is_class_v<T>
  void Write(const T& message) { Visit(*this, const_cast<T&>(message)); }

  std::string bytes_;
};

class Reader {
 public:
  static constexpr bool kReads = true;
  explicit Reader(std::string_view bytes) : left_(bytes) {}

  template <typename... Fields>
  void operator()(Fields&... fields) {
    (Read(fields), ...);
  }
  bool ok() const { return ok_ && left_.empty(); }

 private:
  bool Take(void* to, size_t bytes) {
    if (bytes > left_.size()) ok_ = false;
    if (!ok_) return false;
    if (bytes > 0) std::memcpy(to, left_.data(), bytes);
    left_.remove_prefix(bytes);
    return true;
  }
  template <typename T>
  requires(std::is_arithmetic_v<T> || std::is_enum_v<T>) void Read(T& value) {
    if constexpr (std::is_same_v<T, bool>) {
      uint8_t byte = 0;
      Take(&byte, 1);
      value = byte != 0;
    } else {
      Take(&value, sizeof(T));
    }
  }
  // How many elements follow; each takes at least one byte, so the count cannot ask for more than the frame
  // holds.
  size_t ReadCount(size_t element_bytes) {
    uint32_t count = 0;
    Read(count);
    if (count > left_.size() / element_bytes) ok_ = false;
    return ok_ ? count : 0;
  }
  void Read(std::string& text) {
    text.resize(ReadCount(1));
    Take(text.data(), text.size());
  }
  void Read(TimePoint& time) {
    int64_t count = 0;
    Read(count);
    time = TimePoint(Duration(count));
  }
  template <typename T>
  void Read(std::optional<T>& value) {
    bool has = false;
    Read(has);
    if (has) Read(value.emplace());
  }
  template <typename A, typename B>
  void Read(std::pair<A, B>& pair) {
    Read(pair.first);
    Read(pair.second);
  }
  template <typename T>
  void Read(std::vector<T>& values) {
    if constexpr (std::is_arithmetic_v<T>) {
      values.resize(ReadCount(sizeof(T)));
      Take(values.data(), values.size() * sizeof(T));
    } else {
      const size_t count = ReadCount(1);
      for (size_t i = 0; i < count && ok_; ++i) Read(values.emplace_back());
    }
  }
  template <typename T>
  requires std::is_class_v<T>
  void Read(T& message) { Visit(*this, message); }

  std::string_view left_;
  bool ok_ = true;
};

}  // namespace
}  // namespace cadre::link

// The lists of fields stand in the namespace of their type, where the archives find them.
namespace cadre {
template <typename Archive>
void Visit(Archive& archive, Error& e) {
  archive(e.code, e.message, e.param);
}
}  // namespace cadre

namespace cadre::nn {
template <typename Archive>
void Visit(Archive& archive, TokenLogprob& l) {
  archive(l.token, l.logprob, l.rank);
}
}  // namespace cadre::nn

namespace cadre::engine {
template <typename Archive>
void Visit(Archive& archive, SamplingParams& s) {
  archive(s.temperature, s.top_p, s.top_k, s.min_p, s.repetition_penalty, s.presence_penalty,
          s.frequency_penalty, s.logit_bias, s.allowed_token_ids, s.bad_words, s.seed, s.logprobs,
          s.max_tokens, s.min_tokens, s.stop_token_ids, s.eos_token_ids, s.ignore_eos, s.prompt_logprobs,
          s.logprobs_mode, s.routed_experts_start);
}
template <typename Archive>
void Visit(Archive& archive, TokenIds& t) {
  if constexpr (Archive::kReads) {
    std::vector<int32_t> ids;
    archive(ids);
    t = std::move(ids);
  } else {
    archive(t.vector());
  }
}
template <typename Archive>
void Visit(Archive& archive, KvTransfer& k) {
  archive(k.hold, k.fetch, k.with_answer, k.hold_id, k.by_prompt, k.source_engine, k.source_request,
          k.source_host, k.source_port, k.num_tokens, k.push);
}
template <typename Archive>
void Visit(Archive& archive, HeldKv& h) {
  archive(h.engine_id, h.request_id, h.host, h.port, h.tp_size, h.expires_s, h.blocks, h.tokens,
          h.with_answer);
}
template <typename Archive>
void Visit(Archive& archive, KvSource& s) {
  archive(s.engine_id, s.host, s.port, s.tp_size);
}
template <typename Archive>
void Visit(Archive& archive, KvTransferInfo& k) {
  archive(k.enabled, k.by_request_id, k.produces, k.consumes, k.holds_answers, k.first_port, k.tp_size,
          k.dp_size, k.source);
}
template <typename Archive>
void Visit(Archive& archive, PrefixQuery& q) {
  archive(q.rank, q.epoch, q.since, q.base, q.limit);
}
template <typename Archive>
void Visit(Archive& archive, PrefixChanges& c) {
  archive(c.epoch, c.version, c.base, c.reset, c.more, c.block_size, c.num_ranks, c.caches, c.removed,
          c.added);
}
template <typename Archive, size_t kNumBounds>
void Visit(Archive& archive, Spread<kNumBounds>& s) {
  archive(s.counts, s.sum);
}
template <typename Archive>
void Visit(Archive& archive, KvTransferStats& k) {
  archive(k.seconds, k.bytes, k.post_seconds, k.descriptors, k.enabled, k.num_fetching, k.num_held,
          k.held_blocks, k.num_fetches, k.num_failed_fetches, k.bytes_fetched, k.bytes_sent, k.tokens_fetched,
          k.num_recomputed, k.num_expired, k.num_failed_notifications, k.fetch_seconds);
}
template <typename Archive>
void Visit(Archive& archive, Request& r) {
  archive(r.id, r.prompt, r.sampling, r.cache_salt, r.adapter, r.priority, r.deadline, r.data_parallel_rank,
          r.kv_transfer);
}
template <typename Archive>
void Visit(Archive& archive, GeneratedToken& t) {
  archive(t.token, t.logprobs);
}
template <typename Archive>
void Visit(Archive& archive, RequestTimes& t) {
  archive(t.queued, t.scheduled, t.first_token, t.last_token);
}
template <typename Archive>
void Visit(Archive& archive, RoutedExperts& r) {
  archive(r.start, r.num_layers, r.top_k, r.experts);
}
template <typename Archive>
void Visit(Archive& archive, Finish& f) {
  archive(f.reason, f.stop_token, f.error, f.times, f.num_preemptions, f.held, f.routed);
}
template <typename Archive>
void Visit(Archive& archive, ModelInfo& m) {
  archive(m.vocab_size, m.max_model_len, m.num_kv_blocks, m.block_size, m.kv_transfer);
}
template <typename Archive>
void Visit(Archive& archive, StepSizes& s) {
  archive(s.counts, s.sum);
}
template <typename Archive>
void Visit(Archive& archive, EplbStats& s) {
  archive(s.epoch, s.num_rebalances, s.num_moved, s.moved_bytes, s.num_failed_waves, s.moving_seconds,
          s.moving, s.stalled, s.waits_for, s.balancedness, s.layer_balancedness, s.rank_tokens,
          s.expert_tokens, s.one_row_of_experts, s.version);
}
template <typename Archive>
void Visit(Archive& archive, EplbState& s) {
  archive(s.stats, s.model, s.policy, s.replica_routing, s.use_async, s.window_size, s.window_steps,
          s.step_interval, s.steps_until_next, s.num_unchanged, s.top_k, s.num_layers, s.num_experts,
          s.num_slots, s.num_ranks, s.num_spares, s.layer_epochs, s.slots, s.start_slots, s.load);
}
template <typename Archive>
void Visit(Archive& archive, AdapterInfo& a) {
  archive(a.name, a.path, a.slot, a.version);
}
template <typename Archive>
void Visit(Archive& archive, AdapterList& a) {
  archive(a.adapters, a.num_changes);
}
template <typename Archive>
void Visit(Archive& archive, RankStats& s) {
  archive(s.rank, s.num_running, s.num_waiting, s.kv_cache_usage, s.num_preemptions, s.prefix_cache_queries,
          s.prefix_cache_hits, s.prompt_tokens, s.generation_tokens, s.num_steps, s.cpu_seconds, s.eplb,
          s.step_sizes, s.dispatch_bytes, s.combine_bytes, s.exchange_wire_bytes, s.kv_transfer, s.paused,
          s.weight_generation, s.broken, s.adapters);
}
template <typename Archive>
void Visit(Archive& archive, WeightOrder& o) {
  archive(o.kind, o.folder, o.host, o.port, o.first_receiver, o.world_size, o.timeout_s, o.expected, o.name,
          o.in_place);
}
template <typename Archive>
void Visit(Archive& archive, ControlRequest& r) {
  archive(r.kind, r.mode, r.clear_cache, r.weights);
}
template <typename Archive>
void Visit(Archive& archive, ControlState& s) {
  archive(s.paused, s.generation, s.seconds, s.bytes, s.adapters);
}
}  // namespace cadre::engine

namespace cadre::link {

template <typename Archive>
void Visit(Archive& archive, ReadyMessage& m) {
  archive(m.version, m.model_info, m.stats);
}
template <typename Archive>
void Visit(Archive& archive, SubmitMessage& m) {
  archive(m.id, m.request);
}
template <typename Archive>
void Visit(Archive& archive, CancelMessage& m) {
  archive(m.id);
}
template <typename Archive>
void Visit(Archive& archive, DrainMessage& m) {
  archive(m.milliseconds);
}
template <typename Archive>
void Visit(Archive& archive, AddFrontMessage& m) {
  archive(m.where);
}
template <typename Archive>
void Visit(Archive& archive, EplbWantedMessage& m) {
  archive(m.id);
}
template <typename Archive>
void Visit(Archive& archive, EplbMessage& m) {
  archive(m.id, m.ok, m.error, m.state);
}
template <typename Archive>
void Visit(Archive& archive, ControlMessage& m) {
  archive(m.id, m.request);
}
template <typename Archive>
void Visit(Archive& archive, ControlledMessage& m) {
  archive(m.id, m.ok, m.error, m.state);
}
template <typename Archive>
void Visit(Archive& archive, PrefixesWantedMessage& m) {
  archive(m.id, m.query);
}
template <typename Archive>
void Visit(Archive& archive, PrefixesMessage& m) {
  archive(m.id, m.ok, m.error, m.changes);
}
template <typename Archive>
void Visit(Archive& archive, PromptMessage& m) {
  archive(m.id, m.num_cached_tokens, m.logprobs);
}
template <typename Archive>
void Visit(Archive& archive, TokensMessage& m) {
  archive(m.id, m.tokens);
}
template <typename Archive>
void Visit(Archive& archive, FinishMessage& m) {
  archive(m.id, m.last_tokens, m.finish);
}

template <typename Message>
std::string Encode(const Message& message) {
  Writer writer;
  writer(message);
  return writer.TakeBytes();
}

template <typename Message>
Result<Message> Decode(std::string_view body) {
  Message message;
  Reader reader(body);
  reader(message);
  if (!reader.ok())
    return Fail(Code::kDataLoss, "a message between front and rank is damaged ({} bytes)", body.size());
  return message;
}

#define CADRE_LINK_MESSAGE(Message)                    \
  template std::string Encode(const Message& message); \
  template Result<Message> Decode(std::string_view body);
CADRE_LINK_MESSAGE(ReadyMessage)
CADRE_LINK_MESSAGE(SubmitMessage)
CADRE_LINK_MESSAGE(CancelMessage)
CADRE_LINK_MESSAGE(DrainMessage)
CADRE_LINK_MESSAGE(AddFrontMessage)
CADRE_LINK_MESSAGE(EplbWantedMessage)
CADRE_LINK_MESSAGE(EplbMessage)
CADRE_LINK_MESSAGE(ControlMessage)
CADRE_LINK_MESSAGE(ControlledMessage)
CADRE_LINK_MESSAGE(PrefixesWantedMessage)
CADRE_LINK_MESSAGE(PrefixesMessage)
CADRE_LINK_MESSAGE(PromptMessage)
CADRE_LINK_MESSAGE(TokensMessage)
CADRE_LINK_MESSAGE(FinishMessage)
CADRE_LINK_MESSAGE(engine::RankStats)
#undef CADRE_LINK_MESSAGE

}  // namespace cadre::link
