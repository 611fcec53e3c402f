#include "http/server.h"

#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/steady_timer.hpp>
#include <condition_variable>
#include <unordered_map>

#include "base/log.h"
#include "http/connection.h"
#include "http/tls.h"

namespace cadre::http {
namespace {

using Acceptor = asio::basic_socket_acceptor<asio::generic::stream_protocol>;

constexpr auto kGiveWay = std::chrono::milliseconds(1);

Response PlainError(int status, const std::string& message) {
  return {status, "text/plain; charset=utf-8", {}, message + "\n"};
}

void SetOption(int fd, int level, int name, int value) {
  setsockopt(fd, level, name, &value, sizeof value);
}

// A peer whose machine is gone sends nothing, not even an end: the system finds out within about a minute and
// a half.
void TuneTcp(int fd, std::chrono::milliseconds write_timeout) {
  SetOption(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  SetOption(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  SetOption(fd, IPPROTO_TCP, TCP_KEEPIDLE, 30);
  SetOption(fd, IPPROTO_TCP, TCP_KEEPINTVL, 15);
  SetOption(fd, IPPROTO_TCP, TCP_KEEPCNT, 4);
  SetOption(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, static_cast<int>(write_timeout.count()) + 30'000);
}

std::string PeerName(const AnySocket& socket) {
  ErrorCode ec;
  const auto endpoint = socket.remote_endpoint(ec);
  if (ec) return "unknown";
  const int family = endpoint.protocol().family();
  if (family != AF_INET && family != AF_INET6) return "unix";
  asio::ip::tcp::endpoint tcp;
  tcp.resize(endpoint.size());
  memcpy(tcp.data(), endpoint.data(), endpoint.size());
  return Format("{}:{}", tcp.address().to_string(), tcp.port());
}

// A socket file that nobody listens on is a leftover of a process that died.
Status RemoveStaleSocket(const std::string& path) {
  sockaddr_un address = {};
  if (path.size() >= sizeof address.sun_path) {
    return FailParam(Code::kInvalidArgument, "--uds",
                     "the path '{}' is too long for a unix socket (at most {} bytes)", path,
                     sizeof address.sun_path - 1);
  }
  struct stat info = {};
  if (lstat(path.c_str(), &info) != 0) return {};
  if (!S_ISSOCK(info.st_mode)) {
    return FailParam(Code::kInvalidArgument, "--uds", "'{}' exists and is no socket; choose another path",
                     path);
  }
  address.sun_family = AF_UNIX;
  memcpy(address.sun_path, path.c_str(), path.size());
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const bool refused =
      connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 && errno == ECONNREFUSED;
  close(fd);
  if (!refused) {
    return FailParam(Code::kInvalidArgument, "--uds",
                     "'{}' is in use by another process; choose another path", path);
  }
  unlink(path.c_str());
  return {};
}

Result<sys::Fd> ListenTcp(const ServerOptions& options) {
  const std::string host = options.host.empty() ? "0.0.0.0" : options.host;
  if (options.port < 0 || options.port > 65535) {
    return FailParam(Code::kInvalidArgument, "--port", "--port must be in 0..65535, got {}", options.port);
  }
  asio::io_context io;
  asio::ip::tcp::resolver resolver(io);
  ErrorCode ec;
  const auto found =
      resolver.resolve(host, std::to_string(options.port), asio::ip::tcp::resolver::passive, ec);
  if (ec || found.empty()) {
    return FailParam(Code::kInvalidArgument, "--host", "cannot resolve --host '{}': {}", host, ec.message());
  }
  const auto endpoint = found.begin()->endpoint();
  sys::Fd fd(socket(endpoint.protocol().family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
  SetOption(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  if (!fd || bind(fd.get(), endpoint.data(), static_cast<socklen_t>(endpoint.size())) != 0 ||
      listen(fd.get(), asio::socket_base::max_listen_connections) != 0) {
    return FailParam(Code::kUnavailable, "--port",
                     "cannot listen on {}:{}: {}; choose another --host or --port", host, options.port,
                     ErrorCode(errno, boost::system::system_category()).message());
  }
  return fd;
}

Result<sys::Fd> ListenUnix(const ServerOptions& options) {
  CADRE_TRY(RemoveStaleSocket(options.unix_path));
  const asio::local::stream_protocol::endpoint endpoint(options.unix_path);
  sys::Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd || bind(fd.get(), endpoint.data(), static_cast<socklen_t>(endpoint.size())) != 0 ||
      listen(fd.get(), asio::socket_base::max_listen_connections) != 0) {
    return FailParam(Code::kUnavailable, "--uds", "cannot listen on '{}': {}", options.unix_path,
                     ErrorCode(errno, boost::system::system_category()).message());
  }
  return fd;
}

}  // namespace

class Server::Impl {
 public:
  Impl(ServerOptions options, Handler handler)
      : options_(std::move(options)), handler_(std::move(handler)), budget_(options_.max_total_body_bytes) {
    host_.options = &options_;
    host_.handler = &handler_;
    host_.budget = &budget_;
    host_.error_response = options_.error_response ? options_.error_response : PlainError;
    host_.forget = [this](Connection* connection) { Forget(connection); };
  }
  ~Impl() { Stop(Now()); }

  Status Start();
  void Stop(TimePoint deadline);
  int port() const { return port_; }
  std::string address() const;
  int64_t num_connections() const { return num_connections_.load(); }
  std::vector<std::shared_ptr<IoThread>> threads() const {
    std::vector<std::shared_ptr<IoThread>> all;
    for (const auto& lane : lanes_) all.push_back(lane->io);
    return all;
  }

 private:
  // A thread and what lives on it; touched by that thread only, but for `io`.
  struct Lane {
    std::shared_ptr<IoThread> io = std::make_shared<IoThread>();
    std::unordered_map<Connection*, std::shared_ptr<Connection>> connections;
    asio::steady_timer tick{io->io()};
    bool ticking = false;
  };

  Status Listen();
  void Accept();
  void AcceptShared();
  void TakeShared();
  void AcceptLater();
  void Adopt(Lane& lane, AnySocket socket);
  void Forget(Connection* connection);
  void Tick(Lane& lane);

  ServerOptions options_;
  Handler handler_;
  BodyBudget budget_;
  ConnectionHost host_;
  std::unique_ptr<asio::ssl::context> tls_;
  std::vector<std::unique_ptr<Lane>> lanes_;
  std::unique_ptr<Acceptor> acceptor_;
  std::unique_ptr<asio::steady_timer> accept_retry_;
  size_t next_lane_ = 0;
  int port_ = 0;
  std::atomic<bool> draining_{false};
  bool running_ = false, stopped_ = false;
  std::atomic<int64_t> num_connections_{0};
  std::mutex mutex_;
  std::condition_variable all_gone_;
};

Status Server::Impl::Start() {
  if (!options_.tls.key_file.empty() || !options_.tls.cert_file.empty()) {
    CADRE_ASSIGN(tls_, MakeServerTls(options_.tls));
  }
  for (int i = 0; i < std::max(1, options_.num_threads); ++i) lanes_.push_back(std::make_unique<Lane>());
  CADRE_TRY(Listen());
  accept_retry_ = std::make_unique<asio::steady_timer>(lanes_[0]->io->io());
  for (auto& lane : lanes_) lane->io->Start();
  running_ = true;
  lanes_[0]->io->Post([this] { Accept(); });
  return {};
}

Status Server::Impl::Listen() {
  sys::Fd listener(options_.listener);
  if (!listener) {
    CADRE_ASSIGN(listener, Server::Listen(options_));
  }
  sockaddr_storage address = {};
  socklen_t size = sizeof address;
  if (getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    return Fail(Code::kInternal, "descriptor {} is no listening socket", listener.get());
  }
  if (address.ss_family == AF_INET) port_ = ntohs(reinterpret_cast<sockaddr_in&>(address).sin_port);
  if (address.ss_family == AF_INET6) port_ = ntohs(reinterpret_cast<sockaddr_in6&>(address).sin6_port);
  acceptor_ = std::make_unique<Acceptor>(lanes_[0]->io->io());
  ErrorCode ec;
  acceptor_->assign({address.ss_family, SOCK_STREAM}, listener.get(), ec);
  if (!ec) acceptor_->non_blocking(true, ec);
  if (ec) return Fail(Code::kInternal, "cannot take over a listening socket: {}", ec.message());
  listener.Release();
  return {};
}

std::string Server::Impl::address() const {
  if (!options_.unix_path.empty()) return "unix:" + options_.unix_path;
  const std::string host = options_.host.empty() ? "0.0.0.0" : options_.host;
  const bool is_v6 = host.find(':') != std::string::npos;
  return Format("{}://{}{}{}:{}", tls_ ? "https" : "http", is_v6 ? "[" : "", host, is_v6 ? "]" : "", port_);
}

void Server::Impl::Accept() {
  if (options_.listener >= 0) return AcceptShared();
  if (draining_) return;
  if (num_connections_ >= options_.max_connections) return AcceptLater();
  Lane& lane = *lanes_[next_lane_++ % lanes_.size()];
  acceptor_->async_accept(lane.io->io(), [this, &lane](ErrorCode ec, AnySocket socket) {
    if (draining_) return;
    if (ec) {
      LogWarning("accepting a connection failed: {}", ec.message());
      return AcceptLater();  // out of file descriptors, most likely: trying at once would spin
    }
    ++num_connections_;
    lane.io->Post([this, &lane, socket = std::move(socket)]() mutable { Adopt(lane, std::move(socket)); });
    Accept();
  });
}

// Every process that shares the listener is woken when a connection comes; the ones with more connections
// than another wait a little before they take it, so that open streams are spread evenly.
void Server::Impl::AcceptShared() {
  if (draining_) return;
  if (num_connections_ >= options_.max_connections) return AcceptLater();
  acceptor_->async_wait(Acceptor::wait_read, [this](ErrorCode ec) {
    if (draining_ || ec) return;
    if (!options_.gives_way || !options_.gives_way(num_connections_)) return TakeShared();
    accept_retry_->expires_after(kGiveWay);
    accept_retry_->async_wait([this](ErrorCode cancelled) {
      if (!cancelled) TakeShared();
    });
  });
}

void Server::Impl::TakeShared() {
  if (draining_) return;
  Lane& lane = *lanes_[next_lane_++ % lanes_.size()];
  ErrorCode ec;
  AnySocket socket = acceptor_->accept(lane.io->io(), ec);
  if (ec == asio::error::would_block || ec == asio::error::try_again)
    return AcceptShared();  // another was faster
  if (ec) {
    LogWarning("accepting a connection failed: {}", ec.message());
    return AcceptLater();
  }
  ++num_connections_;
  lane.io->Post([this, &lane, socket = std::move(socket)]() mutable { Adopt(lane, std::move(socket)); });
  AcceptShared();
}

void Server::Impl::AcceptLater() {
  accept_retry_->expires_after(std::chrono::milliseconds(50));
  accept_retry_->async_wait([this](ErrorCode ec) {
    if (!ec) Accept();
  });
}

void Server::Impl::Adopt(Lane& lane, AnySocket socket) {
  if (options_.unix_path.empty()) TuneTcp(socket.native_handle(), options_.write_timeout);
  std::string peer = PeerName(socket);
  std::unique_ptr<Transport<Connection>> transport;
  if (tls_) {
    transport = std::make_unique<TlsTransport<Connection>>(std::move(socket), *tls_);
  } else {
    transport = std::make_unique<PlainTransport<Connection>>(std::move(socket));
  }
  auto connection = std::make_shared<Connection>(host_, lane.io, std::move(transport), std::move(peer));
  lane.connections.emplace(connection.get(), connection);
  connection->Start();
  if (draining_) connection->Drain();
  if (!lane.ticking) Tick(lane);
}

// Deadlines are looked at a few times a second, and only while there are connections: an idle server sleeps.
void Server::Impl::Tick(Lane& lane) {
  lane.ticking = !lane.connections.empty();
  if (!lane.ticking) return;
  const auto shortest = std::min({options_.header_timeout, options_.body_timeout, options_.keep_alive_timeout,
                                  options_.write_timeout, std::chrono::milliseconds(2000)});
  lane.tick.expires_after(std::max(shortest / 4, std::chrono::milliseconds(10)));
  lane.tick.async_wait([this, &lane](ErrorCode ec) {
    if (ec) return;
    const TimePoint now = Now();
    std::vector<std::shared_ptr<Connection>> all;
    all.reserve(lane.connections.size());
    for (const auto& [key, connection] : lane.connections) all.push_back(connection);
    for (const auto& connection : all) connection->CheckDeadline(now);
    Tick(lane);
  });
}

void Server::Impl::Forget(Connection* connection) {
  for (auto& lane : lanes_) {
    if (lane->io.get() == &connection->thread()) lane->connections.erase(connection);
  }
  const int64_t left = --num_connections_;
  if (options_.gives_way) options_.gives_way(left);
  if (left == 0) {
    const std::lock_guard lock(mutex_);
    all_gone_.notify_all();
  }
}

void Server::Impl::Stop(TimePoint deadline) {
  if (stopped_) return;
  stopped_ = true;
  draining_ = true;
  if (!running_) return;
  for (auto& lane : lanes_) {
    lane->io->Post([this, lane = lane.get()] {
      ErrorCode ignored;
      if (lane == lanes_[0].get()) {
        if (acceptor_) acceptor_->close(ignored);
        accept_retry_->cancel();
      }
      std::vector<std::shared_ptr<Connection>> all;
      for (const auto& [key, connection] : lane->connections) all.push_back(connection);
      for (const auto& connection : all) connection->Drain();
    });
  }
  {
    std::unique_lock lock(mutex_);
    all_gone_.wait_until(lock, deadline, [this] { return num_connections_ == 0; });
  }
  // On their own threads, so that no callback of a connection ever runs elsewhere.
  for (auto& lane : lanes_) {
    std::mutex mutex;
    std::condition_variable done_signal;
    bool done = false;
    lane->io->Post([&, lane = lane.get()] {
      std::vector<std::shared_ptr<Connection>> all;
      for (const auto& [key, connection] : lane->connections) all.push_back(connection);
      for (const auto& connection : all) connection->Abort();
      const std::lock_guard lock(mutex);
      done = true;
      done_signal.notify_all();
    });
    std::unique_lock lock(mutex);
    done_signal.wait(lock, [&] { return done; });
    lock.unlock();
    lane->io->Stop();
  }
  if (!options_.unix_path.empty() && options_.listener < 0 && acceptor_) unlink(options_.unix_path.c_str());
}

Result<sys::Fd> Server::Listen(const ServerOptions& options) {
  return options.unix_path.empty() ? ListenTcp(options) : ListenUnix(options);
}

Result<std::unique_ptr<Server>> Server::Start(ServerOptions options, Handler handler) {
  auto impl = std::make_unique<Impl>(std::move(options), std::move(handler));
  CADRE_TRY(impl->Start());
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() = default;
int Server::port() const {
  return impl_->port();
}
std::string Server::address() const {
  return impl_->address();
}
int64_t Server::num_connections() const {
  return impl_->num_connections();
}
std::vector<std::shared_ptr<IoThread>> Server::threads() const {
  return impl_->threads();
}
void Server::Stop(TimePoint deadline) {
  impl_->Stop(deadline);
}

int64_t RaiseOpenFileLimit() {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return -1;
  if (limit.rlim_cur < limit.rlim_max) {
    const rlim_t before = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) limit.rlim_cur = before;
  }
  return static_cast<int64_t>(limit.rlim_cur);
}

}  // namespace cadre::http
