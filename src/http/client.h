#pragma once
// A small HTTP/1.1 client for load generation and routing: many requests at once on few threads, kept-alive
// connections, streamed bodies.
#include <chrono>
#include <memory>
#include <string>

#include "base/error.h"
#include "http/message.h"

namespace cadre::http {

class Server;

struct ClientOptions {
  std::string host = "127.0.0.1";
  int port = 8000;
  std::string unix_path;  ///< not empty: this socket, and no TCP
  bool tls = false;
  bool tls_verify = true;
  std::string ca_file;  ///< PEM; empty: the system's
  int num_threads = 1;
  std::chrono::milliseconds connect_timeout{10'000};
};

struct ClientRequest {
  std::string method = "GET";
  std::string target = "/";
  Headers headers = {};  ///< Host, Content-Length and Connection are added
  std::string body = {};
  std::chrono::milliseconds idle_timeout{600'000};  ///< without a byte of the response
  std::chrono::milliseconds total_timeout{0};       ///< until the response is complete; 0: no limit
};

/// Hears one response, on an io thread of the client; must not block. OnDone is the last call and comes
/// exactly once.
class ResponseSink {
 public:
  virtual ~ResponseSink() = default;
  virtual void OnHead(int status, const Headers& headers) = 0;
  virtual void OnBody(std::string_view bytes) = 0;
  /// OK: the response is complete. Else kUnavailable (no connection, closed early), kDeadlineExceeded,
  /// kCancelled, kDataLoss (not HTTP).
  virtual void OnDone(Status status) = 0;
};

/// A request under way.
class ClientCall {
 public:
  virtual ~ClientCall() = default;
  virtual void
  Cancel() = 0;  ///< any thread; closes the connection, OnDone hears kCancelled; after the end: no effect
};

class Client {
 public:
  /// Resolves the host; connects when the first request comes. Errors: kInvalidArgument, kNotFound.
  /// With `lender` there are no threads of the client's own: it runs on the server's, and what a handler
  /// sends stays on the handler's thread. Then the client must go before the server does, and not on one of
  /// these threads.
  static Result<std::unique_ptr<Client>> Create(ClientOptions options, const Server* lender = nullptr);
  /// Calls that are still running hear kCancelled.
  ~Client();

  /// Any thread; does not block. A kept-alive connection that the server has closed meanwhile is replaced
  /// once.
  std::shared_ptr<ClientCall> Send(ClientRequest request, std::shared_ptr<ResponseSink> sink);

  /// Sends and waits. Not on an io thread of the client.
  Result<Response> Fetch(ClientRequest request);

  class Impl;

 private:
  explicit Client(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace cadre::http
