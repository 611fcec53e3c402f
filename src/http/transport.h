#pragma once
// Private to the room: TCP, unix and TLS sockets behind one small interface with callbacks to an owner.
// The owner has OnHandshake(ec), OnRead(ec, bytes) and OnWritten(ec, bytes) and is kept alive while one is
// due.
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/write.hpp>
#include <memory>

namespace cadre::http {

namespace asio = boost::asio;
using AnySocket = asio::generic::stream_protocol::socket;

template <typename Owner>
class Transport {
 public:
  virtual ~Transport() = default;
  virtual void Handshake(bool is_server, std::shared_ptr<Owner> owner) = 0;
  virtual void Read(char* to, size_t bytes, std::shared_ptr<Owner> owner) = 0;
  virtual void Write(const char* from, size_t bytes, std::shared_ptr<Owner> owner) = 0;
  virtual AnySocket& socket() = 0;

  void Close() {
    boost::system::error_code ignored;
    socket().close(ignored);
  }
  void ShutdownSend() {
    boost::system::error_code ignored;
    socket().shutdown(asio::socket_base::shutdown_send, ignored);
  }
};

template <typename Owner>
class PlainTransport final : public Transport<Owner> {
 public:
  explicit PlainTransport(AnySocket socket) : socket_(std::move(socket)) {}
  void Handshake(bool, std::shared_ptr<Owner> owner) override { owner->OnHandshake({}); }
  void Read(char* to, size_t bytes, std::shared_ptr<Owner> owner) override {
    socket_.async_read_some(asio::buffer(to, bytes),
                            [owner = std::move(owner)](auto ec, size_t n) { owner->OnRead(ec, n); });
  }
  void Write(const char* from, size_t bytes, std::shared_ptr<Owner> owner) override {
    socket_.async_write_some(asio::buffer(from, bytes),
                             [owner = std::move(owner)](auto ec, size_t n) { owner->OnWritten(ec, n); });
  }
  AnySocket& socket() override { return socket_; }

 private:
  AnySocket socket_;
};

template <typename Owner>
class TlsTransport final : public Transport<Owner> {
 public:
  TlsTransport(AnySocket socket, asio::ssl::context& context) : stream_(std::move(socket), context) {}
  asio::ssl::stream<AnySocket>& stream() { return stream_; }
  void Handshake(bool is_server, std::shared_ptr<Owner> owner) override {
    using Stream = asio::ssl::stream<AnySocket>;
    stream_.async_handshake(is_server ? Stream::server : Stream::client,
                            [owner = std::move(owner)](auto ec) { owner->OnHandshake(ec); });
  }
  void Read(char* to, size_t bytes, std::shared_ptr<Owner> owner) override {
    stream_.async_read_some(asio::buffer(to, bytes),
                            [owner = std::move(owner)](auto ec, size_t n) { owner->OnRead(ec, n); });
  }
  void Write(const char* from, size_t bytes, std::shared_ptr<Owner> owner) override {
    stream_.async_write_some(asio::buffer(from, bytes),
                             [owner = std::move(owner)](auto ec, size_t n) { owner->OnWritten(ec, n); });
  }
  AnySocket& socket() override { return stream_.next_layer(); }

 private:
  asio::ssl::stream<AnySocket> stream_;
};

}  // namespace cadre::http
