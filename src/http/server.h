#pragma once
// An HTTP/1.1 server for few threads and many streams. Each connection lives on one io thread; whatever
// happens to it (slow, silent, vanished, hostile) costs that connection only: its time-outs, its bounded
// queue, its limits. A handler answers now or later, from any thread, through a ResponseWriter.
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "http/message.h"
#include "sys/fd.h"

namespace cadre::http {

using Task = std::move_only_function<void()>;

/// Freeing a body of this size (with the tree that was made of it) leaves holes in the allocator's arenas,
/// which keep their pages for ever unless it is told to give them back: malloc_trim, about a millisecond.
constexpr size_t kTrimBodyBytes = size_t{1} << 20;

struct TlsOptions {
  std::string key_file, cert_file;  ///< PEM; both set, or TLS is off
  std::string ca_file;              ///< PEM; whose client certificates are trusted
  int cert_reqs = 0;                ///< 0: ask no client certificate; 1: check one if given; 2: required
  std::string ciphers;              ///< OpenSSL's list; empty: its default
};

struct ServerOptions {
  std::string host = "0.0.0.0";  ///< address or name; not used with unix_path
  int port = 8000;               ///< 0: the system chooses, see Server::port
  std::string unix_path;         ///< not empty: a unix socket at this path and no TCP
  int listener = -1;  ///< a socket from Server::Listen, in place of making one; the server closes it
  /// With a listener that servers in other processes accept from, too: hears how many connections this one
  /// has at every change; true if another has fewer. Then the next connection is left to the others for a
  /// moment.
  std::function<bool(int64_t num_connections)> gives_way;
  TlsOptions tls;
  int num_threads = 1;
  int max_connections = 16384;                         ///< beyond it new ones wait in the system's backlog
  int64_t max_body_bytes = int64_t{32} << 20;          ///< one request's body
  int64_t max_total_body_bytes = int64_t{512} << 20;   ///< all bodies that are being read or answered
  int64_t max_header_bytes = int64_t{4} << 20;         ///< request line and headers together
  int64_t max_request_line_bytes = int64_t{64} << 10;  ///< method, target and version
  int max_header_count = 256;
  int64_t max_stream_queue_bytes = int64_t{16} << 20;  ///< unsent bytes of one response stream; more: cut off
  std::chrono::milliseconds header_timeout{
      30'000};  ///< from the first byte of a request to the end of its headers
  std::chrono::milliseconds body_timeout{30'000};        ///< without a byte of the body
  std::chrono::milliseconds keep_alive_timeout{75'000};  ///< between requests
  std::chrono::milliseconds write_timeout{30'000};       ///< without a byte taken by the client
  /// How errors that the server itself finds (400, 408, 413, 414, 431, 500, 503, 505) look; empty: plain
  /// text.
  std::function<Response(int status, const std::string& message)> error_response;
};

/// Answers one request: either Send, or StartStream, Write..., End. Any thread; no call blocks. Calls after
/// the end or after the client has gone do nothing. A writer that is let go without an answer answers 500.
class ResponseWriter {
 public:
  virtual ~ResponseWriter() = default;
  virtual void Send(Response response) = 0;
  /// Sends the headers now. The body follows in chunks.
  virtual void StartStream(int status, std::string content_type, Headers headers) = 0;
  virtual void Write(std::string_view bytes) = 0;
  virtual void End() = 0;
  /// `callback` runs once, on the io thread, if the client goes away (or is cut off because it does not read)
  /// before the answer has ended; at once if that has happened already. It is dropped when the answer ends.
  /// One at a time.
  virtual void OnDisconnect(Task callback) = 0;
  /// Runs `task` on the io thread of this connection, where the calls above are cheapest (no queue, no wake).
  /// Tasks of one thread keep their order; many tasks cost one wake. Dropped after Server::Stop.
  virtual void Post(Task task) = 0;
};

using Handler = std::function<void(Request, std::shared_ptr<ResponseWriter>)>;

class IoThread;

class Server {
 public:
  /// Binds, listens and starts the threads. `handler` is called on the io threads and must not block for
  /// long. Errors: kInvalidArgument with the address, file or option that does not work.
  static Result<std::unique_ptr<Server>> Start(ServerOptions options, Handler handler);
  ~Server();  // as Stop(Now())

  /// Binds and listens, for servers in other processes that share the socket: each takes it as
  /// ServerOptions::listener. The caller removes a unix socket's file in the end. Errors as Start's.
  static Result<sys::Fd> Listen(const ServerOptions& options);

  int port() const;             ///< the TCP port; 0 with a unix socket
  std::string address() const;  ///< "http://127.0.0.1:8000", "https://...", "unix:/path"
  int64_t num_connections() const;
  /// For Client::Create.
  std::vector<std::shared_ptr<IoThread>> threads() const;

  /// Takes no new connections and no further requests on old ones, waits for running answers until
  /// `deadline`, then cuts the rest off. When it returns no handler or callback runs any more. Call again: no
  /// effect.
  void Stop(TimePoint deadline);

  class Impl;

 private:
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Lifts the soft limit of open files of this process to the hard one; returns the limit that now holds.
int64_t RaiseOpenFileLimit();

}  // namespace cadre::http
