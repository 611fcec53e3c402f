#pragma once
// A connection that carries frames and never blocks. Small messages are copied; the bytes of Data frames go
// out straight from a pool and come in straight to where their receiver wants them.
//
// Whatever the other side does costs it the connection, and us at most one frame's bytes.
#include <deque>
#include <optional>
#include <string>
#include <string_view>

#include "handoff/panels.h"
#include "handoff/protocol.h"
#include "sys/fd.h"

namespace cadre::handoff {

/// What becomes of what comes in. Calls may Break or Abandon, but not destroy the stream.
class FrameSink {
 public:
  virtual ~FrameSink() = default;
  virtual void Heard(FrameKind kind, std::string body) = 0;
  /// Where `bytes` bytes of a piece go: runs of exactly so many, or none to let them fall. They must stay
  /// valid until Landed or Abandon.
  virtual Runs Land(const DataHead& /*head*/, int64_t /*bytes*/) { return {}; }
  virtual void Landed(const DataHead& /*head*/) {}
};

class FrameStream {
 public:
  FrameStream(sys::Fd fd, uint32_t max_body);

  int fd() const { return fd_.get(); }
  void set_max_body(uint32_t bytes) { max_body_ = bytes; }

  /// Takes what has come, up to about 4 MiB. True if there may be more.
  bool Read(FrameSink& sink);
  /// Sends, or keeps for Flush. `fd` (Unix sockets) is duplicated into the receiver; it goes at once or
  /// breaks the stream.
  void Send(FrameKind kind, std::string_view body, int fd = -1);
  /// The runs must stay valid until they are sent or voided.
  void SendData(const DataHead& head, Runs runs);
  void Flush();
  /// At most so many bytes a second go out (the kernel spaces the packets, of TCP alone); 0: as fast as it
  /// goes. Needs no queueing discipline.
  void Pace(double bytes_per_s);
  /// Bytes that could not go yet.
  int64_t num_unsent() const { return out_bytes_; }
  int64_t num_sent() const { return num_sent_; }

  /// Of pieces of `stream` not sent yet nothing is read any more: zeros go in their place. What tells the
  /// receiver so comes after them.
  void Void(uint32_t stream);
  /// The rest of a piece of `stream` that is coming in falls; there will be no Landed.
  void Abandon(uint32_t stream);

  bool broken() const { return broken_; }
  const std::string& reason() const { return reason_; }
  void Break(std::string reason);
  /// The descriptor that came with a frame, once.
  sys::Fd TakeFd() { return std::move(passed_); }

 private:
  struct Out {
    std::string bytes;  // head and body, or head of a piece
    Runs runs;
    size_t run = 0;                  // the first that is not all gone
    std::optional<uint32_t> stream;  // of a piece
  };
  struct In {  // a piece that is coming in
    DataHead head;
    Runs runs;
    size_t run = 0, at = 0;  // next byte
    int64_t left = 0;
    bool wanted = false;
  };

  bool Parse(FrameSink& sink);
  bool BeginData(const FrameHead& frame, FrameSink& sink);
  void TakeBuffered();
  void Advance(int64_t bytes);
  void EndData(FrameSink& sink);
  ssize_t ReadSome();
  void Sent(int64_t bytes);

  sys::Fd fd_;
  uint32_t max_body_;
  std::string in_;
  size_t in_at_ = 0;
  std::optional<In> data_;
  sys::Fd passed_;
  std::deque<Out> out_;
  size_t out_at_ = 0;  // bytes of the front's `bytes` that are gone
  int64_t out_bytes_ = 0, num_sent_ = 0;
  double pace_ = 0;
  bool broken_ = false;
  std::string reason_;
};

}  // namespace cadre::handoff
