#pragma once
// The agent: one thread that polls its listeners, its callers (who opened a connection to it) and its links
// (which it opened), and gives what they say to the two halves, Source and Target. Those belong to the thread
// alone. The engine's calls are posted to it, but for Written, which is a store and, only if somebody waits
// for the token, a wake.
#include <atomic>
#include <functional>
#include <list>
#include <mutex>
#include <set>
#include <thread>
#include <unordered_map>

#include "handoff/source.h"
#include "handoff/target.h"

struct pollfd;

namespace cadre::handoff {

class SocketAgent final : public Agent {
 public:
  static Result<std::unique_ptr<Agent>> Start(AgentOptions options);
  ~SocketAgent() override;

  const std::string& engine_id() const override { return options_.engine_id; }
  const std::string& host() const override { return options_.host; }
  uint16_t port() const override { return port_; }
  void SetPeers(std::vector<PeerAddress> peers) override;
  void SetWeightGeneration(int64_t generation) override;

  Status Open(const std::string& request_id, int64_t num_tokens, const std::string& adapter) override;
  void Blocks(const std::string& request_id, std::span<const int32_t> blocks) override;
  void Written(const std::string& request_id, int32_t layer, int64_t num_tokens) override;
  void Lease(const std::string& request_id, TimePoint until) override;
  void Drop(const std::string& request_id, const Error& why) override;
  std::vector<EndedLease> TakeEnded() override;

  void Fetch(FetchOrder order) override;
  void CancelFetch(FetchId id) override;
  void Reject(const SourceAddress& source) override;
  void Touch(const SourceAddress& source) override;
  std::vector<FetchResult> TakeFetched() override;
  AgentStats stats() const override;

 private:
  class CallerSink;

  explicit SocketAgent(AgentOptions options);
  Status Listen();
  Introduction Self() const;
  void Wake();
  void Post(std::function<void()> call);

  // The agent's thread.
  void Run();
  void TakePosted();
  void AcceptAll(const sys::Fd& listener, bool near);
  void Greet(Caller& caller, const std::string& body);
  void Heard(Caller& caller, FrameKind kind, std::string body);
  void Turn(Caller& caller, const Error& why);
  void NoteStranger(const Caller& caller, const std::string& why);
  bool Work();
  void HandleTimes();
  int PollMs(TimePoint now) const;
  void TakeStats();
  void GiveEnded(EndedLease ended);
  void GiveFetched(FetchResult result);

  AgentOptions options_;
  std::string boot_id_, nonce_, unix_address_;
  sys::Fd wake_, listener_, near_listener_;
  uint16_t port_ = 0;
  std::atomic<bool> stop_ = false, wake_pending_ = false;

  mutable std::mutex mutex_;  // guards the next four
  std::vector<std::function<void()>> posted_;
  std::vector<EndedLease> ended_;
  std::vector<FetchResult> fetched_;
  AgentStats stats_;

  // The engine thread's.
  std::unordered_map<std::string, std::shared_ptr<Progress>> open_;
  int64_t generation_ = 0;

  // The agent thread's.
  Links links_;
  Source source_;
  Target target_;
  std::list<std::unique_ptr<Caller>> callers_;
  std::set<std::string> strangers_;  // hosts that have been logged
  TimePoint accept_after_ = {};

  std::thread thread_;
};

}  // namespace cadre::handoff
