#include "fabric/loop_link.h"

#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <array>
#include <deque>
#include <utility>

namespace cadre::fabric {

struct LoopPipe {
  struct Message {
    MessageHead head;
    std::vector<std::byte> bytes;
  };
  struct Side {
    std::deque<Message> arriving;
    int waker = -1;
    bool closed = false;
  };
  std::mutex mutex;
  std::array<Side, 2> sides;
};

namespace {

class LoopPort;

class LoopLink final : public HostLink {
 public:
  LoopLink(LoopPort* port, std::shared_ptr<LoopPipe> pipe, int side, LinkSink* sink);
  ~LoopLink() override;

  void Send(const MessageHead& head, std::span<const Piece> pieces) override;
  bool sent() const override { return true; }
  const Status& status() const override { return status_; }

  bool Receive() {
    if (!status_) return false;
    LoopPipe::Message message;
    {
      const std::lock_guard lock(pipe_->mutex);
      auto& arriving = pipe_->sides[static_cast<size_t>(side_)].arriving;
      if (arriving.empty()) {
        if (pipe_->sides[static_cast<size_t>(1 - side_)].closed) {
          status_ = Fail(Code::kUnavailable, "the peer closed the connection");
        }
        return false;
      }
      message = std::move(arriving.front());
      arriving.pop_front();
    }
    const auto place = sink_->Place(message.head);
    if (!place) {
      status_ = std::unexpected(place.error());
      return false;
    }
    std::ranges::copy(message.bytes, *place);
    sink_->Arrived(message.head);
    return true;
  }

 private:
  LoopPort* port_;
  std::shared_ptr<LoopPipe> pipe_;
  int side_;
  LinkSink* sink_;
  Status status_;
};

class LoopPort final : public HostPort {
 public:
  LoopPort(LoopNet& net, int waker) : net_(net), waker_(waker) {}

  std::string address() const override { return "loop"; }
  std::string Describe() const override { return "memory of one process"; }

  // The other side need not be there yet: its messages will be.
  Result<std::vector<std::unique_ptr<HostLink>>> Connect(std::span<const LinkRequest> requests,
                                                         const Control&, TimePoint) override {
    std::vector<std::unique_ptr<HostLink>> links;
    for (const LinkRequest& request : requests) {
      std::shared_ptr<LoopPipe> pipe;
      {
        const std::lock_guard lock(net_.mutex);
        auto& waiting = net_.waiting[request.key];
        if (waiting == nullptr) {
          pipe = waiting = std::make_shared<LoopPipe>();
        } else {
          pipe = std::move(waiting);
          net_.waiting.erase(request.key);
        }
      }
      const int side = request.active ? 1 : 0;
      {
        const std::lock_guard lock(pipe->mutex);
        pipe->sides[static_cast<size_t>(side)].waker = waker_;
      }
      links.push_back(std::make_unique<LoopLink>(this, std::move(pipe), side, request.sink));
    }
    return links;
  }

  bool Progress() override {
    bool moved = false;
    for (LoopLink* link : links_) moved |= link->Receive();
    return moved;
  }

  void Sleep(TimePoint until) override {
    pollfd entry = {waker_, POLLIN, 0};
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Now()).count();
    poll(&entry, 1, static_cast<int>(std::clamp<int64_t>(left, 0, 60'000)));
    eventfd_t rung;
    eventfd_read(waker_, &rung);
  }

  LoopNet& net() { return net_; }

  std::vector<LoopLink*> links_;

 private:
  LoopNet& net_;
  int waker_;
};

LoopLink::LoopLink(LoopPort* port, std::shared_ptr<LoopPipe> pipe, int side, LinkSink* sink)
    : port_(port), pipe_(std::move(pipe)), side_(side), sink_(sink) {
  port_->links_.push_back(this);
}

void LoopLink::Send(const MessageHead& head, std::span<const Piece> pieces) {
  LoopPipe::Message message{head, {}};
  message.bytes.reserve(head.bytes);
  for (const Piece& piece : pieces) {
    message.bytes.insert(message.bytes.end(), piece.data, piece.data + piece.bytes);
  }
  port_->net().num_messages += 1;
  port_->net().message_bytes += static_cast<int64_t>(head.bytes);
  const std::lock_guard lock(pipe_->mutex);
  LoopPipe::Side& peer = pipe_->sides[static_cast<size_t>(1 - side_)];
  peer.arriving.push_back(std::move(message));
  if (peer.waker >= 0) eventfd_write(peer.waker, 1);
}

LoopLink::~LoopLink() {
  std::erase(port_->links_, this);
  const std::lock_guard lock(pipe_->mutex);
  pipe_->sides[static_cast<size_t>(side_)].closed = true;
  const LoopPipe::Side& peer = pipe_->sides[static_cast<size_t>(1 - side_)];
  // A closed end has no sleeper.
  if (!peer.closed && peer.waker >= 0) eventfd_write(peer.waker, 1);
}

}  // namespace

std::shared_ptr<HostPort> MakeLoopPort(LoopNet& net, int waker) {
  return std::make_shared<LoopPort>(net, waker);
}

}  // namespace cadre::fabric
