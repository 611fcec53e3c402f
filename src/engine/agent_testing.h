#pragma once
// For tests: agents of one process that hand blocks over by copying them, when and how the test says. The
// slow twin of the real ones: no sockets, no threads, whole blocks, one mutex.
#include <cstring>
#include <map>
#include <mutex>
#include <set>

#include "base/check.h"
#include "handoff/agent.h"

namespace cadre::engine {

class FakeAgent;

/// Which agents there are, by port.
struct FakeNet {
  std::mutex mutex;
  std::map<uint16_t, FakeAgent*> agents;
};

class FakeAgent final : public handoff::Agent {
 public:
  /// `base` null: nothing is copied.
  FakeAgent(FakeNet& net, uint16_t port, kv::Layout layout = {}, int64_t num_blocks = 0,
            std::byte* base = nullptr)
      : net_(net), port_(port), layout_(layout), num_blocks_(num_blocks), base_(base) {
    const std::lock_guard lock(net_.mutex);
    net_.agents[port] = this;
  }
  ~FakeAgent() override {
    const std::lock_guard lock(net_.mutex);
    net_.agents.erase(port_);
  }

  const std::string& engine_id() const override { return engine_id_; }
  const std::string& host() const override { return host_; }
  uint16_t port() const override { return port_; }

  Status Open(const std::string& id, int64_t num_tokens, const std::string& adapter) override {
    const std::lock_guard lock(net_.mutex);
    if (!known_.try_emplace(id, Known{.num_tokens = num_tokens, .adapter = adapter}).second)
      return Fail(Code::kInvalidArgument, "{} is open", id);
    return {};
  }
  void Blocks(const std::string& id, std::span<const int32_t> blocks) override {
    const std::lock_guard lock(net_.mutex);
    known_.at(id).blocks.assign(blocks.begin(), blocks.end());
  }
  void Written(const std::string& id, int32_t layer, int64_t num_tokens) override {
    const std::lock_guard lock(net_.mutex);
    int64_t& written = known_.at(id).written[layer];
    CADRE_CHECK(num_tokens >= written);
    written = num_tokens;
  }
  void Lease(const std::string& id, TimePoint) override {
    const std::lock_guard lock(net_.mutex);
    known_.at(id).leased = true;
  }
  void Drop(const std::string& id, const Error&) override { EndLater(id, handoff::LeaseEnd::kDropped); }
  std::vector<handoff::EndedLease> TakeEnded() override {
    const std::lock_guard lock(net_.mutex);
    return std::exchange(ended_, {});
  }

  void Fetch(handoff::FetchOrder order) override {
    {
      const std::lock_guard lock(net_.mutex);
      orders_[order.id.value] = std::move(order);
      if (hold_back) return;
    }
    Deliver();
  }
  void CancelFetch(handoff::FetchId id) override {
    const std::lock_guard lock(net_.mutex);
    cancelled_.insert(id.value);
  }
  void Reject(const handoff::SourceAddress& source) override {
    const std::lock_guard lock(net_.mutex);
    ++num_rejects_;
    if (FakeAgent* other = Find(source)) other->EndUnlocked(source.request_id, handoff::LeaseEnd::kRejected);
  }
  void Touch(const handoff::SourceAddress&) override {
    const std::lock_guard lock(net_.mutex);
    ++num_touches_;
  }
  std::vector<handoff::FetchResult> TakeFetched() override {
    const std::lock_guard lock(net_.mutex);
    return std::exchange(fetched_, {});
  }
  handoff::AgentStats stats() const override { return {}; }

  // What a test does.

  /// Carries out the orders so far. With `fail` they fail, with so many tokens of each there.
  void Deliver(bool fail = false, int64_t valid_tokens = 0) {
    {
      const std::lock_guard lock(net_.mutex);
      for (auto& [id, order] : std::exchange(orders_, {})) {
        handoff::FetchResult result{.id = handoff::FetchId(id), .status = {}};
        if (cancelled_.erase(id) > 0) {
          result.status = Fail(Code::kCancelled, "cancelled");
        } else if (fail) {
          Copy(order, valid_tokens);
          result.valid_tokens = valid_tokens;
          result.status = Fail(Code::kUnavailable, "the test says so");
        } else {
          result.status = Copy(order, order.num_tokens);
          result.valid_tokens = result.status ? order.num_tokens : 0;
        }
        fetched_.push_back(std::move(result));
      }
    }
    if (wake) wake();
  }
  /// Ends a lease or a drop.
  void EndLease(const std::string& id, handoff::LeaseEnd why) {
    {
      const std::lock_guard lock(net_.mutex);
      EndUnlocked(id, why);
    }
    if (wake) wake();
  }
  struct Known {
    int64_t num_tokens = 0;
    std::string adapter;
    std::vector<int32_t> blocks;
    std::map<int32_t, int64_t> written;  // by layer
    bool leased = false, dropped = false;
  };
  std::map<std::string, Known> known() {
    const std::lock_guard lock(net_.mutex);
    return known_;
  }
  int rejects() {
    const std::lock_guard lock(net_.mutex);
    return num_rejects_;
  }
  int touches() {
    const std::lock_guard lock(net_.mutex);
    return num_touches_;
  }
  std::map<int64_t, handoff::FetchOrder> orders() {
    const std::lock_guard lock(net_.mutex);
    return orders_;
  }

  std::function<void()> wake;
  bool hold_back = false;   ///< fetches wait for Deliver
  bool keep_drops = false;  ///< dropped requests are still being read, until EndLease

 private:
  FakeAgent* Find(const handoff::SourceAddress& source) {
    const auto it = net_.agents.find(source.port);
    return it == net_.agents.end() ? nullptr : it->second;
  }
  void EndLater(const std::string& id, handoff::LeaseEnd why) {
    {
      const std::lock_guard lock(net_.mutex);
      known_.at(id).dropped = true;
      if (keep_drops) return;
      EndUnlocked(id, why);
    }
    if (wake) wake();
  }
  void EndUnlocked(const std::string& id, handoff::LeaseEnd why) {
    if (known_.erase(id) > 0) ended_.push_back({id, why});
  }
  Status Copy(const handoff::FetchOrder& order, int64_t num_tokens) {
    FakeAgent* const other = Find(order.source);
    if (other == nullptr) return Fail(Code::kUnavailable, "nobody is there");
    const auto it = other->known_.find(order.source.request_id);
    if (it == other->known_.end() || it->second.dropped)
      return Fail(Code::kNotFound, "no request {}", order.source.request_id);
    const Known& known = it->second;
    if (known.adapter != order.adapter) return Fail(Code::kUnsupported, "of another adapter");
    if (!known.leased) return Fail(Code::kUnavailable, "it still computes");
    const int32_t num_layers = layout_.num_layers + (layout_.note_bytes > 0);
    for (int32_t layer = 0; base_ != nullptr && layer < num_layers; ++layer) {
      CADRE_CHECK(known.written.at(layer) >= num_tokens);
      const bool notes = layer == layout_.num_layers;
      for (int64_t b = order.first_token / layout_.block_size; b * layout_.block_size < num_tokens; ++b) {
        const auto i = static_cast<size_t>(b);
        std::memcpy(At(layer, order.blocks.at(i)), other->At(layer, known.blocks.at(i)),
                    static_cast<size_t>(notes ? layout_.NotesBytes(1) : layout_.BlockBytes()));
      }
    }
    if (num_tokens == order.num_tokens)
      other->EndUnlocked(order.source.request_id, handoff::LeaseEnd::kFetched);
    return {};
  }
  std::byte* At(int32_t layer, int32_t block) const {
    if (layer == layout_.num_layers)
      return base_ + layout_.PoolBytes(num_blocks_) + block * layout_.NotesBytes(1);
    return base_ + layout_.LayerOffset(layer, num_blocks_) + block * layout_.BlockBytes();
  }

  FakeNet& net_;
  const uint16_t port_;
  const kv::Layout layout_;
  const int64_t num_blocks_;
  std::byte* const base_;
  const std::string engine_id_ = "fake", host_ = "fake";
  std::map<std::string, Known> known_;
  std::map<int64_t, handoff::FetchOrder> orders_;
  std::set<int64_t> cancelled_;
  std::vector<handoff::EndedLease> ended_;
  std::vector<handoff::FetchResult> fetched_;
  int num_rejects_ = 0, num_touches_ = 0;
};

}  // namespace cadre::engine
