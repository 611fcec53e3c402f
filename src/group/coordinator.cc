#include "group/coordinator.h"

#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "base/format.h"
#include "base/log.h"
#include "fabric/control.h"
#include "fabric/fabric.h"
#include "fabric/wire.h"
#include "group/frame_stream.h"
#include "group/silence.h"
#include "sys/sockets.h"

namespace cadre::group {
namespace {

using fabric::WireReader;
using fabric::WireWriter;

constexpr size_t kMaxStrangers = 64;  // beside one for each host that may be about to join

struct Connection {
  std::unique_ptr<FrameStream> stream;
  std::string peer;    // its address
  TimePoint deadline;  // to have said hello
  bool joined = false, left = false, done = false;
  HostHello hello;
  int number = -1;  // in the table
  Silence silence;
};

// The hosts' names and fields, as FirstDifference wants them.
std::string Who(const HostHello& hello) {
  return fabric::NameHost(hello.entry);
}

}  // namespace

struct Coordinator::State {
  CoordinatorOptions options;
  sys::Fd listener, wake;
  uint16_t port = 0;
  std::vector<std::unique_ptr<Connection>> connections;
  bool complete = false, aborted = false;
  TimePoint next_beat = Now(), next_report = Now();
  std::atomic<bool> stop = false;
  std::thread thread;

  void Run();
  void AcceptAll();
  void Hear(Connection& c);
  void HandleHello(Connection& c, const std::string& body);
  void HandleRelay(const std::string& body);
  void Refuse(Connection& c, const std::string& param, const std::string& text);
  std::string WhyNot(const HostHello& hello, std::string& param) const;
  void Finish();
  void HandleGone(Connection& c);
  void Abort(int rank, const std::string& reason, const Connection* from);
  void Beat();
  std::string Missing() const;
  std::vector<Connection*> Joined() const;
};

std::vector<Connection*> Coordinator::State::Joined() const {
  std::vector<Connection*> joined;
  for (const auto& c : connections) {
    if (c->joined && !c->done) joined.push_back(c.get());
  }
  std::ranges::sort(joined, {}, [](const Connection* c) { return c->hello.entry.first_rank; });
  return joined;
}

std::string Coordinator::State::Missing() const {
  std::string text;
  const auto add = [&](int from, int to) {
    if (to > from) text += (text.empty() ? "" : ", ") + fabric::NameRange(from, to - from);
  };
  int next = 0;
  for (const Connection* c : Joined()) {
    add(next, c->hello.entry.first_rank);
    next = std::max(next, c->hello.entry.first_rank + c->hello.entry.num_ranks);
  }
  add(next, options.own.num_ranks_in_all);
  return text;
}

void Coordinator::State::AcceptAll() {
  const auto most =
      kMaxStrangers + static_cast<size_t>(std::clamp(options.own.num_ranks_in_all, 0, fabric::kMaxHosts));
  while (true) {
    auto fd = sys::Accept(listener.get(), Now());
    if (!fd) return;
    const auto is_stranger = [](const auto& c) { return !c->joined; };
    if (static_cast<size_t>(std::ranges::count_if(connections, is_stranger)) >= most) {
      connections.erase(std::ranges::find_if(connections, is_stranger));  // the oldest
    }
    auto c = std::make_unique<Connection>();
    c->peer = sys::PeerHost(fd->get());
    c->stream = std::make_unique<FrameStream>(std::move(*fd), kMaxHelloBytes);
    c->deadline = Now() + options.hello_time;
    connections.push_back(std::move(c));
  }
}

void Coordinator::State::Refuse(Connection& c, const std::string& param, const std::string& text) {
  LogError("refused a host at {}: {}", c.peer, text);
  c.stream->Send(kRefused, WireWriter().PutText(param).PutText(text).text());
  c.done = true;
}

// Why the host cannot join, "" if it can.
std::string Coordinator::State::WhyNot(const HostHello& hello, std::string& param) const {
  const HostHello& own = options.own;
  if (hello.version != kHostProtocol) {
    return Format(
        "it speaks version {} of the protocol between hosts, {} version {}; install the same "
        "version of Cadre on all hosts",
        hello.version, Who(own), kHostProtocol);
  }
  const fabric::HostEntry& entry = hello.entry;
  if (hello.num_ranks_in_all != own.num_ranks_in_all) {
    return Format("{} counts {} ranks in all, {} counts {}; start all with the same value", Who(hello),
                  hello.num_ranks_in_all, Who(own), own.num_ranks_in_all);
  }
  const bool first = entry.num_ranks == 0 && own.entry.num_ranks == 0 && entry.info == own.entry.info;
  if (entry.num_ranks < (first ? 0 : 1) || entry.num_ranks > fabric::kMaxRanksPerHost ||
      entry.first_rank < 0 || entry.first_rank > own.num_ranks_in_all - entry.num_ranks) {
    return Format("{} is not among the deployment's ranks 0 to {}", Who(hello), own.num_ranks_in_all - 1);
  }
  const auto differs = [&](const HostHello& from, const std::vector<ConfigField>& fields) {
    const auto different = CompareConfig(Who(from), from.config, Who(hello), fields);
    if (!different) return std::string();
    param = different->name;
    return different->text;
  };
  // A first host without ranks says nothing of what only ranks have: those are compared with each other.
  std::vector<ConfigField> common = hello.config;
  if (own.entry.num_ranks == 0) {
    std::erase_if(common, [&](const ConfigField& field) {
      return std::ranges::find(own.config, field.name, &ConfigField::name) == own.config.end();
    });
  }
  if (const std::string why = differs(own, common); !why.empty()) return why;
  for (const Connection* c : Joined()) {
    if (own.entry.num_ranks > 0 || c->hello.entry.num_ranks == 0 || first) continue;
    if (const std::string why = differs(c->hello, hello.config); !why.empty()) return why;
    break;
  }
  if (complete) return Format("{} comes too late: all ranks have joined", Who(hello));
  for (const Connection* c : Joined()) {
    const fabric::HostEntry& other = c->hello.entry;
    if (entry.first_rank >= other.first_rank + other.num_ranks ||
        other.first_rank >= entry.first_rank + entry.num_ranks) {
      continue;
    }
    return Format("the ranks of {} are taken by {} at {}; give each host its own start rank", Who(hello),
                  Who(c->hello), c->peer);
  }
  return "";
}

void Coordinator::State::HandleHello(Connection& c, const std::string& body) {
  auto hello = HostHello::Decode(body);
  if (!hello) return Refuse(c, "", "its greeting is broken");
  std::string param;
  if (const std::string why = WhyNot(*hello, param); !why.empty()) return Refuse(c, param, why);
  c.hello = std::move(*hello);
  c.joined = true;
  c.silence.Reset();
  c.stream->set_max_body(kMaxFrameBytes);
  if (c.hello.entry.addresses.empty()) c.hello.entry.addresses = {c.peer};
  LogInfo("{} has joined from {}", Who(c.hello), c.peer);
  if (Missing().empty()) return Finish();
  next_report = Now();
}

void Coordinator::State::Finish() {
  complete = true;
  fabric::HostTable table;
  table.connections = options.connections;
  const std::vector<Connection*> joined = Joined();
  fabric::HostEntry first;
  std::vector<std::string> kinds;
  for (Connection* c : joined) {
    if (c->hello.entry.info == options.own.entry.info) first = c->hello.entry;
    if (c->hello.entry.num_ranks == 0) continue;
    if (table.hosts.empty()) kinds = c->hello.links;
    c->number = table.num_hosts();
    table.hosts.push_back(c->hello.entry);
    std::erase_if(kinds, [&](const std::string& kind) {
      return std::ranges::find(c->hello.links, kind) == c->hello.links.end();
    });
  }
  if (!options.link.empty() && table.num_hosts() > 1) {
    const bool all = std::ranges::find(kinds, options.link) != kinds.end();
    kinds = {options.link};
    if (!all) return Abort(-1, Format("not all hosts can be linked by '{}'", options.link), nullptr);
  }
  if (kinds.empty() && table.num_hosts() > 1) {
    return Abort(-1, "the hosts have no kind of link in common", nullptr);
  }
  if (!kinds.empty()) table.link = kinds[0];
  for (const Connection* c : joined) {
    WireWriter body;
    body.Put(int32_t{c->number});
    table.Write(body);
    body.PutText(first.info).Put(static_cast<uint32_t>(first.addresses.size()));
    for (const std::string& address : first.addresses) body.PutText(address);
    c->stream->Send(kTable, body.text());
  }
}

void Coordinator::State::HandleRelay(const std::string& body) {
  WireReader reader(body);
  std::vector<int> numbers;
  const auto count = reader.Get<uint32_t>();
  for (uint32_t i = 0; i < count && reader.ok(); ++i) numbers.push_back(reader.Get<int32_t>());
  const std::string message = reader.GetText();
  if (!reader.ok()) return;
  for (Connection* c : Joined()) {
    if (std::ranges::find(numbers, c->number) != numbers.end()) c->stream->Send(kRelay, message);
  }
}

void Coordinator::State::Abort(int rank, const std::string& reason, const Connection* from) {
  if (aborted) return;
  aborted = true;
  for (Connection* c : Joined()) {
    if (c != from) c->stream->Send(kAbort, WireWriter().Put(int32_t{rank}).PutText(reason).text());
  }
}

void Coordinator::State::Hear(Connection& c) {
  std::vector<HostFrame> frames;
  c.stream->Read(frames);
  for (const HostFrame& frame : frames) {
    if (c.done) return;
    c.silence.Reset();
    if (!c.joined) {
      frame.kind == kHello ? HandleHello(c, frame.body) : Refuse(c, "", "it did not say who it is");
    } else if (frame.kind == kRelay) {
      HandleRelay(frame.body);
    } else if (frame.kind == kAbort) {
      WireReader reader(frame.body);
      const auto rank = reader.Get<int32_t>();
      Abort(rank, reader.GetText(), &c);
    } else if (frame.kind == kLeave) {
      c.left = true;
      if (!complete) continue;
      for (Connection* other : Joined()) {
        if (other != &c) other->stream->Send(kLeave, Who(c.hello));
      }
    }
  }
}

// The connection is over.
void Coordinator::State::HandleGone(Connection& c) {
  c.done = true;
  if (!c.joined) {
    if (c.stream->reason() != "closed by the other side") {
      LogWarning("closed a connection from {}: {}", c.peer, c.stream->reason());
    }
    return;
  }
  if (c.left) return;
  if (!complete) {
    LogWarning("{} went away before all had joined: {}", Who(c.hello), c.stream->reason());
    next_report = Now();
    return;
  }
  Abort(c.hello.entry.first_rank, Format("the connection to {} ended: {}", Who(c.hello), c.stream->reason()),
        &c);
}

void Coordinator::State::Beat() {
  const TimePoint now = Now();
  for (const auto& c : connections) {
    if (c->done) continue;
    if (!c->joined && now >= c->deadline) {
      LogWarning("closed a connection from {}: it did not say who it is within {} s", c->peer,
                 fabric::SecondsText(options.hello_time));
      c->done = true;
    }
    if (!c->joined || c->left) continue;
    c->stream->Send(kBeat, "");
    if (!c->silence.TooLong(options.timeout, options.beat_interval)) continue;
    const std::string text =
        Format("{} gave no sign of life for {} s; is it stopped, its link down, or the machine overloaded?",
               Who(c->hello), fabric::SecondsText(options.timeout));
    c->done = true;
    complete ? Abort(c->hello.entry.first_rank, text, c.get()) : LogWarning("{}", text);
  }
  if (complete || now < next_report) return;
  next_report = now + options.report_interval;
  const std::string missing =
      Format("waiting for {} (of {} ranks in all)", Missing(), options.own.num_ranks_in_all);
  for (Connection* c : Joined()) c->stream->Send(kWaiting, WireWriter().PutText(missing).text());
}

void Coordinator::State::Run() {
  while (!stop.load()) {
    std::vector<pollfd> polls = {{wake.get(), POLLIN, 0}, {listener.get(), POLLIN, 0}};
    const size_t num_polled = connections.size();
    for (const auto& c : connections) {
      polls.push_back({c->stream->fd(), static_cast<short>(POLLIN | (c->stream->unsent() ? POLLOUT : 0)), 0});
    }
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(next_beat - Now()).count();
    poll(polls.data(), polls.size(), static_cast<int>(std::clamp<int64_t>(left, 0, 10'000)));
    for (size_t i = 0; i < num_polled; ++i) {
      Connection& c = *connections[i];
      if (polls[i + 2].revents != 0) Hear(c);
      c.stream->Flush();
      // At once: the host may have come again, and be heard next.
      if (c.stream->broken() && !c.done) HandleGone(c);
    }
    if (polls[1].revents != 0) AcceptAll();
    if (Now() >= next_beat) {
      next_beat = Now() + options.beat_interval;
      Beat();
    }
    for (const auto& c : connections) {
      if (c->stream->broken() && !c->done) HandleGone(*c);
    }
    std::erase_if(connections, [](const auto& c) { return c->done; });
  }
  // The host of this process has said its last word just now: it may be why all end.
  for (const auto& c : connections) Hear(*c);
  for (Connection* c : Joined()) c->stream->Send(kLeave, "");
  const TimePoint deadline = Now() + std::chrono::seconds(1);
  for (Connection* c : Joined()) {
    while (c->stream->unsent() && !c->stream->broken() && Now() < deadline) {
      sys::WaitReady(c->stream->fd(), sys::Ready::kWrite, deadline);
      c->stream->Flush();
    }
  }
}

Coordinator::Coordinator(std::unique_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<Coordinator>> Coordinator::Start(CoordinatorOptions options) {
  auto state = std::make_unique<State>();
  state->options = std::move(options);
  CADRE_ASSIGN(state->listener, sys::ListenTcp(state->options.address, state->options.port));
  CADRE_ASSIGN(state->port, sys::LocalPort(state->listener.get()));
  state->wake = sys::Fd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!state->wake) return Fail(Code::kResourceExhausted, "cannot make an event descriptor");
  state->thread = std::thread([s = state.get()] { s->Run(); });
  return std::unique_ptr<Coordinator>(new Coordinator(std::move(state)));
}

Coordinator::~Coordinator() {
  state_->stop = true;
  eventfd_write(state_->wake.get(), 1);
  state_->thread.join();
}

uint16_t Coordinator::port() const {
  return state_->port;
}

}  // namespace cadre::group
