// The port of tcp_link.h: makes connections and moves them.
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/format.h"
#include "base/log.h"
#include "fabric/tcp_link.h"
#include "fabric/tcp_port_hello.h"
#include "fabric/wire.h"
#include "sys/sockets.h"

namespace cadre::fabric {
namespace {

constexpr auto kHelloTime = std::chrono::seconds(5);  // for a caller to say who it is
constexpr auto kEarlyTime =
    std::chrono::seconds(120);  // for us to ask for a caller that came before its time
constexpr auto kDialTime = std::chrono::seconds(10);
constexpr size_t kMaxCallers = 512;
constexpr size_t kMaxRails = 64;
// Up to here it is cheaper to try every connection than to ask epoll.
constexpr size_t kFewRails = 2;

struct PeerAddress {
  std::vector<std::string> hosts;
  uint16_t port = 0;
  uint32_t num_rails = 0;
};

Result<PeerAddress> Decode(const std::string& text) {
  WireReader from(text);
  PeerAddress address;
  address.port = static_cast<uint16_t>(from.Get<uint32_t>());
  address.num_rails = from.Get<uint32_t>();
  const auto n = from.Get<uint32_t>();
  for (uint32_t i = 0; i < n && from.ok(); ++i) address.hosts.push_back(from.GetText());
  if (!from.ok() || address.hosts.empty() || address.num_rails < 1 || address.num_rails > kMaxRails) {
    return Fail(Code::kDataLoss, "a rank sent no address to be reached at");
  }
  return address;
}

}  // namespace

// A link in the making.
struct TcpPort::Making {
  std::vector<sys::Fd> rails;
  std::vector<bool> answered;
  std::string last_error;
  bool complete() const {
    return std::ranges::all_of(answered, [](bool a) { return a; });
  }
};

Result<std::shared_ptr<HostPort>> MakeTcpPort(const PortOptions& options) {
  return TcpPort::Make(options);
}

Result<std::shared_ptr<HostPort>> TcpPort::Make(const PortOptions& options) {
  std::shared_ptr<TcpPort> port(new TcpPort(options));
  if (port->options_.addresses.empty()) {
    return Fail(Code::kInvalidArgument, "a host has no address for other hosts");
  }
  // With several addresses one listener serves them all; who has no key gets nowhere.
  const bool one = options.addresses.size() == 1;
  CADRE_ASSIGN(port->listener_, sys::ListenTcp(one ? options.addresses[0] : "", 0));
  CADRE_ASSIGN(port->port_, sys::LocalPort(port->listener_.get()));
  port->epoll_ = sys::Fd(epoll_create1(EPOLL_CLOEXEC));
  epoll_event event = {.events = EPOLLIN, .data = {.ptr = nullptr}};
  if (!port->epoll_ ||
      (options.waker >= 0 && epoll_ctl(port->epoll_.get(), EPOLL_CTL_ADD, options.waker, &event) != 0)) {
    return Fail(Code::kResourceExhausted, "cannot make an epoll descriptor");
  }
  return std::shared_ptr<HostPort>(std::move(port));
}

int TcpPort::num_rails() const {
  const int wanted =
      static_cast<int>(options_.addresses.size()) * std::max(1, options_.connections_per_address);
  return std::min(wanted, static_cast<int>(kMaxRails));
}

std::string TcpPort::address() const {
  WireWriter to;
  to.Put(uint32_t{port_})
      .Put(static_cast<uint32_t>(num_rails()))
      .Put(static_cast<uint32_t>(options_.addresses.size()));
  for (const std::string& address : options_.addresses) to.PutText(address);
  return to.text();
}

std::string TcpPort::Describe() const {
  return Format("TCP, {} connection{} a peer", num_rails(), num_rails() == 1 ? "" : "s");
}

void TcpPort::Watch(TcpLink::Rail& rail) {
  epoll_event event = {.events = EPOLLIN, .data = {.ptr = &rail}};
  epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, rail.fd.get(), &event);
  rails_.push_back(&rail);
}

void TcpPort::Forget(TcpLink::Rail& rail) {
  if (std::erase(rails_, &rail) > 0) epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, rail.fd.get(), nullptr);
}

bool TcpPort::Progress() {
  bool moved = false;
  // A link that breaks takes its rails out of the list.
  for (size_t i = 0; i < rails_.size(); ++i) {
    TcpLink::Rail& rail = *rails_[i];
    if (!rail.queue.empty()) moved |= rail.link->Flush(rail);
  }
  if (rails_.size() <= kFewRails) {
    for (size_t i = 0; i < rails_.size(); ++i) moved |= rails_[i]->link->Receive(*rails_[i]);
    return moved;
  }
  std::array<epoll_event, 16> events;
  const int n = epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), 0);
  for (int i = 0; i < n; ++i) {
    auto* rail = static_cast<TcpLink::Rail*>(events[static_cast<size_t>(i)].data.ptr);
    if (rail != nullptr && rail->link->status()) moved |= rail->link->Receive(*rail);
  }
  return moved;
}

void TcpPort::Sleep(TimePoint until) {
  for (TcpLink::Rail* rail : rails_) {
    const bool wanted = !rail->queue.empty();
    if (wanted == rail->armed) continue;
    epoll_event event = {.events = EPOLLIN | (wanted ? EPOLLOUT : 0u), .data = {.ptr = rail}};
    epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, rail->fd.get(), &event);
    rail->armed = wanted;
  }
  const auto left = until == TimePoint::max()
                        ? 60'000
                        : std::chrono::ceil<std::chrono::milliseconds>(until - Now()).count();
  epoll_event event;
  epoll_wait(epoll_.get(), &event, 1, static_cast<int>(std::clamp<int64_t>(left, 0, 60'000)));
  eventfd_t rung;
  if (options_.waker >= 0) eventfd_read(options_.waker, &rung);
}

void TcpPort::TakeCallers() {
  while (true) {
    sys::Fd fd(accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd) return;
    sys::SetNoDelay(fd.get());
    if (callers_.size() >= kMaxCallers) callers_.erase(callers_.begin());
    callers_.push_back({.fd = std::move(fd), .deadline = Now() + kHelloTime});
  }
}

// Reads what callers have to say, as far as it has come; drops those that are no ports.
void TcpPort::HearCallers() {
  std::erase_if(callers_, [](Caller& caller) {
    if (caller.got < caller.hello.size()) {
      const ssize_t n = recv(caller.fd.get(), caller.hello.data() + caller.got,
                             caller.hello.size() - caller.got, MSG_DONTWAIT);
      if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) return true;
      if (n > 0) caller.got += static_cast<size_t>(n);
      PortHello hello;
      std::memcpy(&hello, caller.hello.data(), sizeof(hello));
      if (caller.got >= sizeof(hello.magic) && hello.magic != kPortMagic) {
        LogWarning("closed a connection to a rank's port: the caller does not speak this protocol");
        return true;
      }
      if (caller.got == caller.hello.size()) {
        caller.deadline = Now() + kEarlyTime;
        if (hello.version != kPortVersion) {
          LogWarning("closed a connection to a rank's port: the caller speaks version {}, this rank {}",
                     hello.version, kPortVersion);
          const PortAnswer answer;
          send(caller.fd.get(), &answer, sizeof(answer), MSG_NOSIGNAL | MSG_DONTWAIT);
          return true;
        }
      }
    }
    return Now() >= caller.deadline;
  });
}

Status TcpPort::Dial(const LinkRequest& request, Making& making, TimePoint deadline) {
  CADRE_ASSIGN(const PeerAddress peer, Decode(request.peer_address));
  making.answered.assign(peer.num_rails, false);
  for (uint32_t r = 0; r < peer.num_rails; ++r) {
    const std::string& host = peer.hosts[r % peer.hosts.size()];
    const TimePoint until = std::min(deadline, Now() + kDialTime);
    auto fd = sys::ConnectTcp(host, peer.port, until);
    if (!fd) {
      return Fail(fd.error().code, "cannot reach {}: {}", request.peer_name, fd.error().message);
    }
    const PortHello hello = {.rail = r, .num_rails = peer.num_rails, .key = request.key};
    CADRE_TRY(sys::SendAll(fd->get(), std::as_bytes(std::span(&hello, 1)), until));
    making.rails.push_back(std::move(*fd));
  }
  return {};
}

// The peers' answers to our hellos. 16 bytes come whole.
Status TcpPort::HearAnswers(const LinkRequest& request, Making& making) {
  for (size_t r = 0; r < making.rails.size(); ++r) {
    if (making.answered[r]) continue;
    PortAnswer answer;
    const ssize_t n = recv(making.rails[r].get(), &answer, sizeof(answer), MSG_DONTWAIT | MSG_PEEK);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (n > 0 && static_cast<size_t>(n) < sizeof(answer)) continue;
    if (n <= 0) return Fail(Code::kUnavailable, "{} closed the connection", request.peer_name);
    [[maybe_unused]] const ssize_t taken = recv(making.rails[r].get(), &answer, sizeof(answer), MSG_DONTWAIT);
    if (answer.magic != kPortMagic || answer.accepted == 0) {
      return Fail(Code::kUnsupported, "{} speaks version {} of the protocol between hosts, this rank {}",
                  request.peer_name, answer.version, kPortVersion);
    }
    making.answered[r] = true;
  }
  return {};
}

// Gives callers that have a key to the requests that wait for it.
Status TcpPort::Match(std::span<const LinkRequest> requests, std::vector<Making>& making) {
  for (Caller& caller : callers_) {
    if (caller.got < caller.hello.size()) continue;
    PortHello hello;
    std::memcpy(&hello, caller.hello.data(), sizeof(hello));
    for (size_t i = 0; i < requests.size(); ++i) {
      if (requests[i].active || requests[i].key != hello.key) continue;
      if (hello.rail >= making[i].answered.size() || making[i].answered[hello.rail]) break;
      const PortAnswer answer{.accepted = 1};
      CADRE_TRY(sys::SendAll(caller.fd.get(), std::as_bytes(std::span(&answer, 1)), Now() + kHelloTime));
      making[i].rails[hello.rail] = std::move(caller.fd);
      making[i].answered[hello.rail] = true;
      break;
    }
  }
  std::erase_if(callers_, [](const Caller& caller) { return !caller.fd; });
  return {};
}

Result<std::vector<std::unique_ptr<HostLink>>> TcpPort::Connect(std::span<const LinkRequest> requests,
                                                                const Control& control, TimePoint deadline) {
  std::vector<Making> making(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    if (requests[i].active) {
      CADRE_TRY(Dial(requests[i], making[i], deadline));
    } else {
      making[i].rails.resize(static_cast<size_t>(num_rails()));
      making[i].answered.assign(making[i].rails.size(), false);
    }
  }
  while (true) {
    TakeCallers();
    HearCallers();
    CADRE_TRY(Match(requests, making));
    std::string missing;
    std::vector<pollfd> polls = {{listener_.get(), POLLIN, 0}};
    for (size_t i = 0; i < requests.size(); ++i) {
      if (requests[i].active) CADRE_TRY(HearAnswers(requests[i], making[i]));
      if (making[i].complete()) continue;
      missing += (missing.empty() ? "" : ", ") + requests[i].peer_name;
      for (size_t r = 0; r < making[i].rails.size(); ++r) {
        if (!making[i].answered[r] && making[i].rails[r])
          polls.push_back({making[i].rails[r].get(), POLLIN, 0});
      }
    }
    if (missing.empty()) break;
    CADRE_TRY(control.Check());
    if (Now() >= deadline) return Fail(Code::kDeadlineExceeded, "no connection came from {}", missing);
    for (const Caller& caller : callers_) {
      if (caller.got < caller.hello.size()) polls.push_back({caller.fd.get(), POLLIN, 0});
    }
    poll(polls.data(), polls.size(), 10);
    Progress();
  }
  std::vector<std::unique_ptr<HostLink>> links;
  for (size_t i = 0; i < requests.size(); ++i) {
    links.push_back(
        std::make_unique<TcpLink>(this, requests[i].peer_name, requests[i].sink, std::move(making[i].rails)));
  }
  return links;
}

}  // namespace cadre::fabric
