#pragma once
// The plain TCP kind of host_link.h: a link is one or several connections ("rails"), one for each address of
// the accepting host times so many. A small message goes over the first; a large one is cut into as many
// shares as there are rails. A share is a head and its bytes; both sides know a message by (channel, round).
//
// What arrives is untrusted until a connection has shown its link's key; from then on it is checked for
// sense, and a peer that talks nonsense loses the link, nothing else.
#include <sys/uio.h>

#include <array>
#include <deque>
#include <map>

#include "fabric/host_link.h"
#include "sys/fd.h"

namespace cadre::fabric {

struct ShareHead {
  uint32_t magic = 0;
  uint32_t channel = 0, round = 0, reserved = 0;
  uint64_t offset = 0, total = 0;  // of the message
  uint64_t at = 0, bytes = 0;      // of this share in it
};

class TcpPort;

class TcpLink final : public HostLink {
 public:
  TcpLink(TcpPort* port, std::string peer_name, LinkSink* sink, std::vector<sys::Fd> rails);
  ~TcpLink() override;

  void Send(const MessageHead& head, std::span<const Piece> pieces) override;
  bool sent() const override;
  const Status& status() const override { return status_; }

 private:
  friend class TcpPort;

  struct Outgoing {
    ShareHead head;
    std::vector<iovec> parts;  // the head, then the pieces
    size_t next = 0;           // the first part that is not all gone
  };
  struct Rail {
    TcpLink* link = nullptr;
    sys::Fd fd;
    ShareHead head;       // what is being received
    size_t head_got = 0;  // bytes of it
    std::byte* place = nullptr;
    uint64_t body_got = 0;
    std::deque<Outgoing> queue;
    bool armed = false;  // epoll also looks for room to write
  };
  struct Arrival {
    MessageHead head;
    uint64_t got = 0;
  };

  /// One message at most; whether anything came.
  bool Receive(Rail& rail);
  bool ReceiveBody(Rail& rail);
  Status BeginShare(Rail& rail);
  void FinishShare(Rail& rail);
  /// Whether anything went.
  bool Flush(Rail& rail);
  void Queue(Rail& rail, const MessageHead& head, std::span<const Piece> pieces, uint64_t at, uint64_t bytes);
  void Break(Error error);
  void BreakErrno(const char* what, int error);

  TcpPort* port_;
  std::string peer_name_;
  LinkSink* sink_;
  Status status_;
  std::vector<std::unique_ptr<Rail>> rails_;
  std::map<uint32_t, Arrival> arriving_;  // by channel
};

class TcpPort final : public HostPort {
 public:
  static Result<std::shared_ptr<HostPort>> Make(const PortOptions& options);

  std::string address() const override;
  Result<std::vector<std::unique_ptr<HostLink>>> Connect(std::span<const LinkRequest> requests,
                                                         const Control& control, TimePoint deadline) override;
  bool Progress() override;
  void Sleep(TimePoint until) override;
  std::string Describe() const override;

 private:
  friend class TcpLink;

  // A connection that came in and has not said yet, or not been asked for yet, whose it is.
  struct Caller {
    sys::Fd fd;
    std::array<std::byte, 32> hello = {};
    size_t got = 0;
    TimePoint deadline;
  };
  struct Making;

  explicit TcpPort(PortOptions options) : options_(std::move(options)) {}
  int num_rails() const;
  void TakeCallers();
  void HearCallers();
  Status Dial(const LinkRequest& request, Making& making, TimePoint deadline);
  Status HearAnswers(const LinkRequest& request, Making& making);
  Status Match(std::span<const LinkRequest> requests, std::vector<Making>& making);
  void Watch(TcpLink::Rail& rail);
  void Forget(TcpLink::Rail& rail);

  PortOptions options_;
  sys::Fd listener_, epoll_;
  uint16_t port_ = 0;
  std::vector<Caller> callers_;
  std::vector<TcpLink::Rail*> rails_;
};

}  // namespace cadre::fabric
