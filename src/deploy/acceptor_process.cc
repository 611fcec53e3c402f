#include "deploy/acceptor_process.h"

#include <signal.h>
#include <sys/socket.h>

#include <map>
#include <mutex>
#include <optional>
#include <thread>

#include "base/log.h"
#include "cluster/engine_cluster.h"
#include "deploy/acceptor_protocol.h"
#include "deploy/api_front.h"
#include "deploy/peer_connections.h"
#include "fabric/wire.h"
#include "link/engine_client.h"
#include "link/outbox.h"
#include "sys/process.h"
#include "sys/sockets.h"

namespace cadre::deploy {
namespace {

using fabric::WireReader;
using fabric::WireWriter;

constexpr auto kConnectTime = std::chrono::seconds(30);  // for a rank to announce itself

std::string ErrorText(const Error& error) {
  return WireWriter()
      .Put(static_cast<int32_t>(error.code))
      .PutText(error.message)
      .PutText(error.param)
      .text();
}

class Acceptor {
 public:
  Acceptor(const config::ServeOptions& options, int number)
      : options_(options), number_(number), control_(kAcceptorControlFd), to_parent_(control_.get()) {}

  Status Run() {
    sys::Fd listener(kAcceptorListenerFd);
    if (const Status opened = Open(std::move(listener)); !opened) {
      to_parent_.Put(kNotOpened, ErrorText(opened.error()));
      return opened;
    }
    to_parent_.Put(kOpened, WireWriter().PutText(front_->address()).text());
    while (true) {
      auto frame = sys::RecvFrame(control_.get(), kMaxAcceptorFrame, TimePoint::max());
      if (!frame) break;  // stopped, or the parent is gone
      Handle(*frame);
    }
    if (stopper_.joinable()) stopper_.join();
    return {};
  }

 private:
  Status Open(sys::Fd listener) {
    CADRE_ASSIGN(const ModelSetup setup, DescribeModel(options_.engine));
    const int num_acceptors = options_.engine.parallel.api_server_count.value_or(1);
    if (number_ >= num_acceptors) return Fail(Code::kInternal, "there is no acceptor {}", number_);
    CADRE_ASSIGN(auto peers, PeerConnections::Map(sys::Fd(kAcceptorPeersFd), num_acceptors));
    peers_.emplace(std::move(peers));
    peers_->OthersHaveFewer(number_, 0);
    CADRE_ASSIGN(front_, ApiFront::Open(
                             options_, setup,
                             {.listener = std::move(listener),
                              .gives_way = [this](int64_t n) { return peers_->OthersHaveFewer(number_, n); },
                              .ask_fronts = [this](auto done) { AskOthers(std::move(done)); }}));
    return {};
  }

  void Handle(sys::Frame& frame) {
    WireReader body(std::move(frame.body));
    switch (frame.kind) {
      case kStarting:
        return front_->SetStarting(body.GetText());
      case kBoard:
        if (!frame.fds.empty()) board_ = std::move(frame.fds.front());
        return;
      case kLinks:
        body.Get<uint32_t>();
        for (sys::Fd& fd : frame.fds) links_.emplace_back(body.Get<int32_t>(), std::move(fd));
        return;
      case kServe:
        if (const Status status = Serve(); !status) {
          to_parent_.Put(kNotServing, ErrorText(status.error()));
        } else {
          to_parent_.Put(kServing, "");
        }
        return;
      case kPartWanted: {
        const serve::FrontPart part = front_->Part();
        WireWriter reply;
        reply.Put(body.Get<uint64_t>()).Put(part.num_in_flight).PutText(part.metrics);
        return to_parent_.Put(kPart, reply.text());
      }
      case kPartsOfOthers:
        return TakeParts(body);
      case kFailed: {
        const Error error{Code::kUnavailable, body.GetText(), {}};
        for (const auto& client : clients_) client->Fail(error);
        return;
      }
      case kStop: {
        const TimePoint deadline = Now() + std::chrono::milliseconds(body.Get<int64_t>());
        if (!stopper_.joinable()) stopper_ = std::thread([this, deadline] { Stop(deadline); });
        return;
      }
      default:
        LogWarning("unknown message {} from the parent", frame.kind);
    }
  }

  Status Serve() {
    std::vector<engine::Engine*> engines;
    for (auto& [rank, fd] : links_) {
      CADRE_ASSIGN(auto client,
                   link::EngineClient::Connect(
                       std::move(fd),
                       {.rank = rank,
                        .max_queued_requests =
                            options_.engine.scheduler.max_num_queued_reqs.value_or(kMaxQueuedRequests),
                        .owns_engine = false},
                       Now() + kConnectTime));
      engines.push_back(client.get());
      clients_.push_back(std::move(client));
    }
    links_.clear();
    if (engines.empty()) return Fail(Code::kInternal, "the parent named no ranks");
    CADRE_ASSIGN(auto board, cluster::LoadBoard::Map(std::move(board_)));
    CADRE_ASSIGN(cluster_,
                 cluster::EngineCluster::Create(
                     std::move(engines), {.board = std::move(board),
                                          .front = number_,
                                          .prefix_caching = options_.engine.cache.enable_prefix_caching}));
    front_->Serve(*cluster_);
    return {};
  }

  void Stop(TimePoint deadline) {
    front_->Stop(deadline);
    shutdown(control_.get(), SHUT_RD);  // ends Run
  }

  // On a thread of the HTTP server.
  void AskOthers(std::function<void(std::vector<serve::FrontPart>)> done) {
    uint64_t ticket = 0;
    {
      const std::lock_guard lock(mutex_);
      ticket = next_ticket_++;
      asked_[ticket] = std::move(done);
    }
    to_parent_.Put(kPartsWanted, WireWriter().Put(ticket).text());
  }
  void TakeParts(WireReader& body) {
    const auto ticket = body.Get<uint64_t>();
    std::vector<serve::FrontPart> parts;
    for (auto left = body.Get<uint32_t>(); left > 0 && body.ok(); --left) {
      const auto load = body.Get<int64_t>();
      parts.push_back({.num_in_flight = load, .metrics = body.GetText()});
    }
    std::function<void(std::vector<serve::FrontPart>)> done;
    {
      const std::lock_guard lock(mutex_);
      const auto node = asked_.extract(ticket);
      if (node.empty()) return;
      done = node.mapped();
    }
    done(std::move(parts));
  }

  const config::ServeOptions& options_;
  const int number_;
  sys::Fd control_;
  std::optional<PeerConnections> peers_;
  link::Outbox to_parent_;
  std::vector<std::pair<int, sys::Fd>> links_;
  sys::Fd board_;
  std::vector<std::unique_ptr<link::EngineClient>> clients_;
  std::unique_ptr<cluster::EngineCluster> cluster_;
  std::mutex mutex_;  // guards the two below
  uint64_t next_ticket_ = 0;
  std::map<uint64_t, std::function<void(std::vector<serve::FrontPart>)>> asked_;
  std::unique_ptr<ApiFront> front_;  // stopped before what it uses goes
  std::thread stopper_;
};

}  // namespace

Status RunAcceptor(const config::ServeOptions& options, int number) {
  sys::DieWithParent(SIGKILL);
  return Acceptor(options, number).Run();
}

}  // namespace cadre::deploy
