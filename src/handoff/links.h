#pragma once
// The connections that this agent has opened: to sources, and to the other tp ranks of its instance. One for
// each address, made when it is first wanted and kept; dialled, introduced and, within a host, given the
// source's memory by a short-lived thread, so that the agent's never waits.
//
// While anything is under way on a link it is asked four times a second; one that says nothing for long is
// taken for lost, as is one that ends. Everybody on it hears so.
//
// All of it belongs to the agent's thread.
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include "handoff/frames.h"
#include "sys/memory.h"

namespace cadre::handoff {

class Link;

/// Somebody with a stream on a link. Gone from it before it is destroyed (StreamPlace sees to that).
class StreamUser {
 public:
  virtual ~StreamUser() = default;
  /// A message for this stream; `in` stands behind the stream's number.
  virtual void Heard(FrameKind kind, fabric::WireReader& in) = 0;
  virtual void Lost(const Error& why) = 0;
  virtual Runs Land(const DataHead& /*head*/, int64_t /*bytes*/) { return {}; }
  virtual void Landed(const DataHead& /*head*/) {}
  /// A Ping was sent; everything that came before its answer is known to be of a living lease.
  virtual void Asked() {}
  virtual void Answered() {}
};

class Link final : public FrameSink {
 public:
  Link(std::string name, FrameStream stream, Introduction peer, sys::Region memory);

  FrameStream& stream() { return stream_; }
  const Introduction& peer() const { return peer_; }
  /// "10.0.0.1:5600"
  const std::string& name() const { return name_; }
  bool shares_memory() const { return static_cast<bool>(memory_); }
  /// The other side's pool, to be read; only if it shares memory.
  Pool pool() const { return {peer_.identity.layout, memory_.data(), peer_.num_blocks}; }

  uint32_t Join(StreamUser* user);
  void Leave(uint32_t stream);
  bool idle() const { return users_.empty(); }

  void Heard(FrameKind kind, std::string body) override;
  Runs Land(const DataHead& head, int64_t bytes) override;
  void Landed(const DataHead& head) override;

  /// Asks whether the other side is alive if it is time, and breaks the stream if it has been silent.
  void Tend(TimePoint now, Duration silence_timeout);
  TimePoint next_tending() const { return idle() ? TimePoint::max() : next_ping_; }
  /// Tells all users, who leave.
  void Lose();

 private:
  std::string name_;
  FrameStream stream_;
  Introduction peer_;
  sys::Region memory_;
  std::map<uint32_t, StreamUser*> users_;
  uint32_t next_stream_ = 1;
  TimePoint next_ping_ = {};
  TimePoint unanswered_since_ = TimePoint::max();
};

/// A user's place on a link; leaves it at the end of its life.
class StreamPlace {
 public:
  StreamPlace() = default;
  StreamPlace(std::shared_ptr<Link> link, StreamUser* user)
      : link_(std::move(link)), stream_(link_->Join(user)) {}
  ~StreamPlace() { Reset(); }
  StreamPlace(const StreamPlace&) = delete;
  StreamPlace& operator=(const StreamPlace&) = delete;
  void Take(std::shared_ptr<Link> link, StreamUser* user) {
    Reset();
    link_ = std::move(link);
    stream_ = link_->Join(user);
  }
  void Reset() {
    if (link_) link_->Leave(stream_);
    link_.reset();
  }

  explicit operator bool() const { return link_ != nullptr; }
  Link* operator->() const { return link_.get(); }
  Link& operator*() const { return *link_; }
  uint32_t stream() const { return stream_; }
  void Send(FrameKind kind, std::string_view body) const { link_->stream().Send(kind, body); }

 private:
  std::shared_ptr<Link> link_;
  uint32_t stream_ = 0;
};

class Links {
 public:
  using Then = std::function<void(Result<std::shared_ptr<Link>>)>;

  /// `self`: what Hello says. `ready` wakes the agent's thread (from any), which then calls TakeDialled.
  Links(Introduction self, bool share_memory, Duration connect_timeout, std::function<void()> ready);
  ~Links();

  /// Calls `then` with the link to this address, now or when it stands, unless `owner` is gone by then. The
  /// other side must be of `engine_id` if that is not empty. Errors: kNotFound, kUnavailable,
  /// kDeadlineExceeded, kUnsupported (what does not fit, by name).
  void Open(const PeerAddress& address, const std::string& engine_id, std::weak_ptr<void> owner, Then then);
  void TakeDialled();

  const std::map<std::string, std::shared_ptr<Link>>& all() const { return links_; }
  /// Links that broke are told to their users and forgotten.
  void DropBroken();

 private:
  struct Waiting {
    std::string engine_id;
    std::weak_ptr<void> owner;
    Then then;
  };
  struct Dialling {
    std::thread thread;
    std::vector<Waiting> waiting;
  };
  struct Dialled {
    std::string key;
    Result<std::shared_ptr<Link>> link;
  };
  static void Give(const std::shared_ptr<Link>& link, const Waiting& to);

  Introduction self_;
  bool share_memory_;
  Duration connect_timeout_;
  std::function<void()> ready_;
  std::map<std::string, std::shared_ptr<Link>> links_;
  std::map<std::string, Dialling> dialling_;
  std::mutex mutex_;
  std::vector<Dialled> dialled_;  // guarded by the mutex
};

/// Connects, introduces and, where both are of one host, maps the other's pool. Blocks until `deadline`.
Result<std::shared_ptr<Link>> Dial(const PeerAddress& address, const Introduction& self, bool share_memory,
                                   TimePoint deadline);

}  // namespace cadre::handoff
