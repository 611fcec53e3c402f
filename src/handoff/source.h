#pragma once
// The side that has keys and values: which requests are known, who is served with them, and how long their
// blocks are kept.
//
// Invariants:
//  * A block is read for somebody else only while its request is open or leased here: at the end of either,
//    in one go on this thread, every stream of the request is refused and what it had queued is voided; only
//    then, and when the other tp ranks have done the same (or are silent for a second), TakeEnded names it.
//  * Readers that share memory cannot be stopped, but they learn it: a target that has everything asks
//    tp rank 0, and only `Valid` makes the copy good. It is given only if the request was open or leased all
//    the time between the grant and the question: a request that ended refuses its streams, and is never
//    found under the same name by an old stream.
//  * A token is sent only when its layer has been written and its block is known.
#include <atomic>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <unordered_map>

#include "handoff/links.h"

namespace cadre::handoff {

/// What the engine thread says of a request within a forward, without a lock.
struct Progress {
  Progress(std::string id, const kv::Layout& layout)
      : request_id(std::move(id)),
        written(static_cast<size_t>(layout.num_layers + (layout.note_bytes > 0))) {}
  std::string request_id;
  std::vector<std::atomic<int64_t>> written;  ///< by layer, then of notes: tokens from the first on
  std::atomic<bool> watched = false;          ///< somebody waits for the next token
  std::atomic<bool> closed = false;           ///< over: the entry can go
};

/// A connection that somebody else has opened.
struct Caller {
  explicit Caller(sys::Fd fd, bool by_unix)
      : stream(std::move(fd), kMaxHelloBytes), near(by_unix), greet_until(Now() + std::chrono::seconds(5)) {}
  FrameStream stream;
  bool near;  ///< over the Unix socket: has this pool mapped
  TimePoint greet_until;
  bool greeted = false;
  bool trusted = false;  ///< a tp rank of this instance
  Introduction peer;
  std::string host;
};

class Source {
 public:
  struct Options {
    Pool pool;
    int32_t tp_rank = 0;
    double max_bytes_per_s = 0;  ///< to all targets together; 0: no limit
    Links* links = nullptr;
    std::function<void(EndedLease)> ended;
  };
  explicit Source(Options options);
  ~Source();

  // What the engine says.
  void Open(std::shared_ptr<Progress> progress, int64_t num_tokens, int64_t generation, std::string adapter);
  /// `open`: also if it is not known yet (tp ranks past 0 hear of a request so).
  void Blocks(const std::shared_ptr<Progress>& progress, std::vector<int32_t> blocks);
  void Lease(const std::string& request_id, TimePoint until);
  void Drop(const std::string& request_id, const Error& why);
  void SetPeers(std::vector<PeerAddress> peers) { peers_ = std::move(peers); }

  // What targets say.
  void HearWant(Caller* caller, const std::string& body);
  void HearDone(Caller* caller, uint32_t stream);
  void HearStop(Caller* caller, uint32_t stream);
  void HearTell(Caller* caller, fabric::WireReader& in, uint32_t stream);
  void HearPing(Caller* caller);
  /// From tp rank 0 of this instance.
  void HearEnd(Caller* caller, fabric::WireReader& in, uint32_t stream);
  void Forget(Caller* caller);

  /// Sends what can be sent, up to some pieces. True if there is more.
  bool Pump();
  void HandleTimes(TimePoint now);
  TimePoint next_time() const;
  int64_t num_open() const { return static_cast<int64_t>(held_.size()); }
  int64_t num_leases() const { return num_leases_; }
  int64_t num_expired() const { return num_expired_; }
  int64_t bytes_sent() const { return bytes_sent_; }

 private:
  struct Serving {  // a stream of a caller
    Caller* caller = nullptr;
    Want want;
    // Of data:
    std::vector<int64_t> sent;  // by layer, notes if wanted behind them: tokens up to here
    int32_t layer = 0;          // the next one to look at
    size_t blocks_told = 0;
  };
  struct Held {
    std::shared_ptr<Progress> progress;
    std::vector<int32_t> blocks;
    int64_t num_tokens = 0, generation = 0;
    std::string adapter;
    bool leased = false;
    std::optional<LeaseEnd> over;  // known before the lease begins: it ends with that at once
    TimePoint until = TimePoint::max();
    Duration length = {};
    std::list<Serving> servings;
  };
  struct PastEnd {
    std::string request_id;
    std::string text;
    TimePoint when;
    bool dropped;
  };
  class PeerEnd;

  void Add(std::shared_ptr<Progress> progress, int64_t num_tokens, int64_t generation, std::string adapter);
  void Serve(Held& held, Serving serving);
  static void Refuse(Caller* caller, uint32_t stream, const Error& why);
  void End(const std::string& request_id, LeaseEnd why, const Error& error);
  void Close(const std::string& request_id, const Error& error);
  /// The last target is gone before it had everything.
  void Unwanted(const std::string& request_id, LeaseEnd why);
  Status CheckComplete(const Held& held, const Want& want) const;
  void PumpNear(Held& held, Serving& serving);
  bool PumpData(Held& held, Serving& serving);
  void SharePace();
  int64_t SendableTokens(const Held& held, const Serving& serving, int32_t layer) const;
  Error WhyUnknown(const std::string& request_id) const;
  std::pair<Held*, std::list<Serving>::iterator> Find(Caller* caller, uint32_t stream);

  Options options_;
  bool repace_ = false;  // who is sent to has changed
  std::vector<PeerAddress> peers_;
  std::unordered_map<std::string, Held> held_;
  std::list<Serving> waiting_;                             // for a request that is not known yet
  std::deque<PastEnd> past_;                               // so that who comes late hears why
  std::deque<std::pair<std::string, TimePoint>> refused_;  // by a target, before they were opened; bounded
  std::list<std::shared_ptr<PeerEnd>> ending_;
  int64_t num_leases_ = 0, num_expired_ = 0, bytes_sent_ = 0;
};

}  // namespace cadre::handoff
