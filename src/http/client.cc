#include "http/client.h"

#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/connect.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/steady_timer.hpp>
#include <condition_variable>
#include <functional>
#include <optional>
#include <unordered_set>

#include "http/io_thread.h"
#include "http/message_parser.h"
#include "http/server.h"
#include "http/tls.h"
#include "http/transport.h"

namespace cadre::http {
namespace {

constexpr size_t kReadBytes = 16 << 10;
constexpr int64_t kMaxHeadBytes = 1 << 20;

using Endpoint = asio::generic::stream_protocol::endpoint;
class Lane;

struct Peer {
  ClientOptions options;
  std::vector<Endpoint> endpoints;
  std::unique_ptr<asio::ssl::context> tls;
  std::string host_header;
};

// One request and its way through at most two connections.
struct Job {
  std::string bytes;  // the whole request as it is sent
  std::shared_ptr<ResponseSink> sink;
  std::chrono::milliseconds idle_timeout;
  TimePoint end = TimePoint::max();  // of the whole response
  bool is_head = false;
  bool retried = false;
};

class ClientConnection : public std::enable_shared_from_this<ClientConnection> {
 public:
  ClientConnection(Lane& lane, const Peer& peer, asio::io_context& io) : lane_(lane), peer_(peer), io_(io) {}

  void Begin(std::shared_ptr<Job> job);
  void CheckDeadline(TimePoint now);
  void Fail(Code code, const std::string& why);
  const std::shared_ptr<Job>& job() const { return job_; }

  void OnHandshake(ErrorCode ec);
  void OnRead(ErrorCode ec, size_t bytes);
  void OnWritten(ErrorCode ec, size_t bytes);

 private:
  void NewParser();
  void Connect(size_t which);
  void SendRequest();
  void Parse();
  void Finish();
  void StartRead();
  void ConnectionLost(const std::string& why);

  Lane& lane_;
  const Peer& peer_;
  asio::io_context& io_;
  std::unique_ptr<Transport<ClientConnection>> transport_;
  std::shared_ptr<Job> job_;
  std::optional<MessageParser<false>> parser_;
  bool connected_ = false, reused_ = false, reading_ = false, closed_ = false;
  bool any_byte_ = false;
  size_t written_ = 0;
  bool write_in_flight_ = false;
  std::string in_;
  size_t in_end_ = 0;
  TimePoint deadline_ = TimePoint::max();
};

// A thread's connections.
class Lane {
 public:
  /// `borrowed`: a running thread of somebody else; null: one of its own.
  Lane(const Peer& peer, std::shared_ptr<IoThread> borrowed)
      : peer_(peer),
        owns_thread_(!borrowed),
        io_(borrowed ? std::move(borrowed) : std::make_shared<IoThread>()) {
    if (owns_thread_) io_->Start();
  }
  ~Lane() { Stop(); }

  void Stop();
  IoThread& thread() { return *io_; }
  void Run(std::shared_ptr<Job> job);
  void CancelJob(const std::shared_ptr<Job>& job);
  void BackToIdle(const std::shared_ptr<ClientConnection>& connection) { idle_.push_back(connection); }
  void Forget(const std::shared_ptr<ClientConnection>& connection);

 private:
  void Tick();
  void RunThere(const std::function<void()>& task);

  const Peer& peer_;
  const bool owns_thread_;
  const std::shared_ptr<IoThread> io_;
  asio::steady_timer tick_{io_->io()};
  bool ticking_ = false;
  std::vector<std::shared_ptr<ClientConnection>> idle_;
  std::unordered_set<std::shared_ptr<ClientConnection>> all_;
};

void ClientConnection::Begin(std::shared_ptr<Job> job) {
  job_ = std::move(job);
  reused_ = connected_;
  any_byte_ = false;
  NewParser();
  if (connected_) return SendRequest();
  deadline_ = std::min(Now() + peer_.options.connect_timeout, job_->end);
  Connect(0);
}

void ClientConnection::NewParser() {
  parser_.emplace(kMaxHeadBytes, 1024, nullptr);
  parser_->body_limit(boost::none);
  if (job_->is_head) parser_->skip(true);
  parser_->on_header = [this] {
    if (parser_->status / 100 != 1) job_->sink->OnHead(parser_->status, parser_->headers);
  };
  parser_->on_body = [this](std::string_view bytes) { job_->sink->OnBody(bytes); };
}

void ClientConnection::Connect(size_t which) {
  auto socket = std::make_shared<AnySocket>(io_);
  ErrorCode ec;
  socket->open(peer_.endpoints[which].protocol(), ec);
  if (ec) return Fail(Code::kUnavailable, "cannot make a socket: " + ec.message());
  AnySocket& raw = *socket;
  raw.async_connect(peer_.endpoints[which], [self = shared_from_this(), socket, which](ErrorCode failed) {
    if (self->closed_) return;
    if (failed && which + 1 < self->peer_.endpoints.size()) return self->Connect(which + 1);
    if (failed) return self->Fail(Code::kUnavailable, "cannot connect: " + failed.message());
    if (self->peer_.options.unix_path.empty()) {
      const int on = 1;
      setsockopt(socket->native_handle(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    if (self->peer_.tls) {
      auto tls = std::make_unique<TlsTransport<ClientConnection>>(std::move(*socket), *self->peer_.tls);
      SSL_set_tlsext_host_name(tls->stream().native_handle(), self->peer_.options.host.c_str());
      if (self->peer_.options.tls_verify)
        SSL_set1_host(tls->stream().native_handle(), self->peer_.options.host.c_str());
      self->transport_ = std::move(tls);
    } else {
      self->transport_ = std::make_unique<PlainTransport<ClientConnection>>(std::move(*socket));
    }
    self->transport_->Handshake(false, self);
  });
}

void ClientConnection::OnHandshake(ErrorCode ec) {
  if (closed_) return;
  if (ec) return Fail(Code::kUnavailable, "the TLS handshake failed: " + ec.message());
  connected_ = true;
  SendRequest();
}

void ClientConnection::SendRequest() {
  deadline_ = std::min(Now() + job_->idle_timeout, job_->end);
  written_ = 0;
  write_in_flight_ = true;
  transport_->Write(job_->bytes.data(), job_->bytes.size(), shared_from_this());
  StartRead();
}

void ClientConnection::OnWritten(ErrorCode ec, size_t bytes) {
  write_in_flight_ = false;
  if (closed_ || !job_) return;
  if (ec) return;  // the reader sees the end, after whatever the server still had to say
  written_ += bytes;
  if (written_ == job_->bytes.size()) return;
  write_in_flight_ = true;
  transport_->Write(job_->bytes.data() + written_, job_->bytes.size() - written_, shared_from_this());
}

void ClientConnection::StartRead() {
  if (reading_ || closed_) return;
  reading_ = true;
  if (in_.size() < in_end_ + kReadBytes) in_.resize(in_end_ + kReadBytes);
  transport_->Read(in_.data() + in_end_, in_.size() - in_end_, shared_from_this());
}

void ClientConnection::OnRead(ErrorCode ec, size_t bytes) {
  reading_ = false;
  if (closed_) return;
  if (!job_) return ConnectionLost("closed while idle");  // data or end without a request: of no use any more
  if (ec) {
    ErrorCode at_end;
    if (any_byte_) parser_->put_eof(at_end);
    if (any_byte_ && parser_->is_done() && !at_end) return Finish();
    return ConnectionLost(ec == asio::error::eof ? "the server closed the connection" : ec.message());
  }
  any_byte_ = true;
  in_end_ += bytes;
  deadline_ = std::min(Now() + job_->idle_timeout, job_->end);
  Parse();
  if (!closed_) StartRead();
}

void ClientConnection::Parse() {
  size_t used = 0;
  ErrorCode ec;
  while (!parser_->is_done() && used < in_end_) {
    const size_t n = parser_->put(asio::const_buffer(in_.data() + used, in_end_ - used), ec);
    used += n;
    if (closed_ || !job_) return;
    if (ec || n == 0) break;
  }
  in_.erase(0, used);
  in_end_ -= used;
  if (ec && ec != beast::http::error::need_more)
    return Fail(Code::kDataLoss, "the response is not valid HTTP: " + ec.message());
  if (!parser_->is_done()) return;
  if (parser_->status / 100 == 1) {  // 100 Continue: the real one follows
    NewParser();
    if (in_end_ > 0) Parse();
    return;
  }
  Finish();
}

void ClientConnection::Finish() {
  const auto self = shared_from_this();
  const bool keep =
      parser_->keep_alive() && in_end_ == 0 && !write_in_flight_ && written_ == job_->bytes.size();
  const auto job = std::exchange(job_, nullptr);
  deadline_ = TimePoint::max();
  if (keep) {
    lane_.BackToIdle(self);
  } else {
    closed_ = true;
    transport_->Close();
    lane_.Forget(self);
  }
  job->sink->OnDone({});
}

void ClientConnection::ConnectionLost(const std::string& why) {
  if (job_ && reused_ && !any_byte_ && !job_->retried) {
    const auto self = shared_from_this();
    auto job = std::exchange(job_, nullptr);
    job->retried = true;
    closed_ = true;
    transport_->Close();
    lane_.Forget(self);
    return lane_.Run(std::move(job));
  }
  Fail(Code::kUnavailable, why);
}

void ClientConnection::Fail(Code code, const std::string& why) {
  if (closed_) return;
  const auto self = shared_from_this();
  closed_ = true;
  if (transport_) transport_->Close();
  lane_.Forget(self);
  if (const auto job = std::exchange(job_, nullptr)) {
    job->sink->OnDone(cadre::Fail(code, "{}", why));
  }
}

void ClientConnection::CheckDeadline(TimePoint now) {
  if (now < deadline_) return;
  Fail(Code::kDeadlineExceeded, !connected_                ? "connecting took too long"
                                : job_ && now >= job_->end ? "the whole answer took too long"
                                                           : "the server has sent nothing for too long");
}

void Lane::Run(std::shared_ptr<Job> job) {
  std::shared_ptr<ClientConnection> connection;
  if (!idle_.empty() && !job->retried) {
    connection = std::move(idle_.back());  // the warmest
    idle_.pop_back();
  } else {
    connection = std::make_shared<ClientConnection>(*this, peer_, io_->io());
    all_.insert(connection);
  }
  connection->Begin(std::move(job));
  if (!ticking_) Tick();
}

void Lane::CancelJob(const std::shared_ptr<Job>& job) {
  for (const auto& connection : all_) {
    if (connection->job() != job) continue;
    const auto keep = connection;
    return keep->Fail(Code::kCancelled, "cancelled by the caller");
  }
}

void Lane::Forget(const std::shared_ptr<ClientConnection>& connection) {
  std::erase(idle_, connection);
  all_.erase(connection);
}

void Lane::Tick() {
  ticking_ = !all_.empty();
  if (!ticking_) return;
  tick_.expires_after(std::chrono::milliseconds(100));
  tick_.async_wait([this](ErrorCode ec) {
    if (ec) return;
    const std::vector<std::shared_ptr<ClientConnection>> all(all_.begin(), all_.end());
    for (const auto& connection : all) connection->CheckDeadline(Now());
    Tick();
  });
}

// Runs `task` on the lane's thread and waits; a borrowed thread that has ended runs nothing any more.
void Lane::RunThere(const std::function<void()>& task) {
  std::mutex mutex;
  std::condition_variable signal;
  bool done = false;
  const bool posted = io_->Post([&] {
    task();
    const std::lock_guard lock(mutex);
    done = true;
    signal.notify_all();
  });
  if (!posted) return task();
  std::unique_lock lock(mutex);
  signal.wait(lock, [&] { return done; });
}

void Lane::Stop() {
  RunThere([this] {
    const std::vector<std::shared_ptr<ClientConnection>> all(all_.begin(), all_.end());
    for (const auto& connection : all) connection->Fail(Code::kCancelled, "the client was shut down");
    tick_.cancel();
  });
  if (owns_thread_) return io_->Stop();
  // What the closing has made due stands in the thread's queue by the end of the task above, and these two
  // come after it: the second is posted when the first has run.
  RunThere([] {});
  RunThere([] {});
}

class Call final : public ClientCall {
 public:
  Call(Lane& lane, std::shared_ptr<Job> job) : lane_(lane), job_(job) {}
  void Cancel() override {
    // The job is gone once its connection has dropped it; the lane lives as long as the client.
    lane_.thread().Post([lane = &lane_, weak = job_] {
      if (const auto job = weak.lock()) lane->CancelJob(job);
    });
  }

 private:
  Lane& lane_;
  const std::weak_ptr<Job> job_;
};

// Collects a response for Fetch.
class Collector final : public ResponseSink {
 public:
  void OnHead(int status, const Headers& headers) override {
    response_.status = status;
    response_.headers = headers;
    if (const std::string* type = FindHeader(headers, "Content-Type")) response_.content_type = *type;
  }
  void OnBody(std::string_view bytes) override { response_.body += bytes; }
  void OnDone(Status status) override {
    const std::lock_guard lock(mutex_);
    status_ = std::move(status);
    signal_.notify_all();
  }
  Result<Response> Wait() {
    std::unique_lock lock(mutex_);
    signal_.wait(lock, [this] { return status_.has_value(); });
    if (!status_->has_value()) return std::unexpected(status_->error());
    return std::move(response_);
  }

 private:
  Response response_;
  std::mutex mutex_;
  std::condition_variable signal_;
  std::optional<Status> status_;
};

std::string Serialize(const ClientRequest& request, const std::string& host) {
  std::string out = Format("{} {} HTTP/1.1\r\nHost: {}\r\n", request.method, request.target, host);
  for (const auto& [name, value] : request.headers) out += Format("{}: {}\r\n", name, value);
  if (!request.body.empty() || request.method == "POST")
    out += Format("Content-Length: {}\r\n", request.body.size());
  out += "\r\n";
  out += request.body;
  return out;
}

}  // namespace

class Client::Impl {
 public:
  Peer peer;
  std::vector<std::unique_ptr<Lane>> lanes;
  std::atomic<size_t> next_lane{0};

  // The thread that asks, if it is one of ours; else the next.
  Lane& PickLane() {
    for (auto& lane : lanes) {
      if (lane->thread().IsCurrent()) return *lane;
    }
    return *lanes[next_lane++ % lanes.size()];
  }
};

Result<std::unique_ptr<Client>> Client::Create(ClientOptions options, const Server* lender) {
  auto impl = std::make_unique<Impl>();
  Peer& peer = impl->peer;
  if (!options.unix_path.empty()) {
    if (options.unix_path.size() > 107) {
      return Fail(Code::kInvalidArgument, "the path '{}' is too long for a unix socket", options.unix_path);
    }
    peer.endpoints.emplace_back(asio::local::stream_protocol::endpoint(options.unix_path));
    peer.host_header = "localhost";
  } else {
    asio::io_context io;
    ErrorCode ec;
    const auto found = asio::ip::tcp::resolver(io).resolve(options.host, std::to_string(options.port), ec);
    if (ec || found.empty())
      return Fail(Code::kNotFound, "cannot resolve '{}': {}", options.host, ec.message());
    for (const auto& entry : found) peer.endpoints.emplace_back(entry.endpoint());
    const bool is_v6 = options.host.find(':') != std::string::npos;
    peer.host_header = Format("{}{}{}:{}", is_v6 ? "[" : "", options.host, is_v6 ? "]" : "", options.port);
  }
  if (options.tls) {
    CADRE_ASSIGN(peer.tls, MakeClientTls(options.tls_verify, options.ca_file));
  }
  peer.options = std::move(options);
  if (lender != nullptr) {
    for (auto& thread : lender->threads()) impl->lanes.push_back(std::make_unique<Lane>(peer, thread));
  } else {
    for (int i = 0; i < std::max(1, peer.options.num_threads); ++i)
      impl->lanes.push_back(std::make_unique<Lane>(peer, nullptr));
  }
  return std::unique_ptr<Client>(new Client(std::move(impl)));
}

Client::Client(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Client::~Client() = default;

std::shared_ptr<ClientCall> Client::Send(ClientRequest request, std::shared_ptr<ResponseSink> sink) {
  auto job = std::make_shared<Job>();
  job->bytes = Serialize(request, impl_->peer.host_header);
  job->sink = std::move(sink);
  job->idle_timeout = request.idle_timeout;
  job->is_head = request.method == "HEAD";
  if (request.total_timeout.count() > 0) job->end = Now() + request.total_timeout;
  Lane& lane = impl_->PickLane();
  auto call = std::make_shared<Call>(lane, job);
  lane.thread().Post([&lane, job = std::move(job)]() mutable { lane.Run(std::move(job)); });
  return call;
}

Result<Response> Client::Fetch(ClientRequest request) {
  auto collector = std::make_shared<Collector>();
  Send(std::move(request), collector);
  return collector->Wait();
}

}  // namespace cadre::http
