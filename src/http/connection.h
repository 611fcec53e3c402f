#pragma once
// Private to the room: one client connection as a state machine on its io thread. It always reads (that is
// how a vanished client is seen), up to a bound; it writes from two strings in turn; its deadline is looked
// at by the thread's tick. Requests of one connection are answered one after the other, the next is parsed
// when the answer before it has left.
#include <optional>

#include "http/io_thread.h"
#include "http/message_parser.h"
#include "http/transport.h"

namespace cadre::http {

class Connection;

/// What connections share; outlives them.
struct ConnectionHost {
  const ServerOptions* options;
  const Handler* handler;
  BodyBudget* budget;
  std::function<void(Connection*)> forget;  // the connection has closed; on its thread
  std::function<Response(int, const std::string&)> error_response;
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(ConnectionHost& host, std::shared_ptr<IoThread> thread,
             std::unique_ptr<Transport<Connection>> transport, std::string peer);

  void Start();
  void CheckDeadline(TimePoint now);
  void Drain();  ///< answer what runs, then close
  void Abort();  ///< close now

  // From the transport.
  void OnHandshake(ErrorCode ec);
  void OnRead(ErrorCode ec, size_t bytes) { Guard(&Connection::TakeRead, ec, bytes); }
  void OnWritten(ErrorCode ec, size_t bytes) { Guard(&Connection::TakeWritten, ec, bytes); }

  // From writers, on the io thread; `serial` says which request is meant.
  void Send(uint64_t serial, Response response);
  void StartStream(uint64_t serial, int status, const std::string& content_type, const Headers& headers);
  void WriteBody(uint64_t serial, std::string_view bytes);
  void EndBody(uint64_t serial);
  void SetOnDisconnect(uint64_t serial, Task callback);
  void Abandoned(uint64_t serial);
  bool IsOpen(uint64_t serial) const { return Current(serial); }
  IoThread& thread() { return *thread_; }

 private:
  enum class State { kHandshake, kIdle, kHead, kBody, kAnswering, kLingering, kClosed };

  void Guard(void (Connection::*event)(ErrorCode, size_t), ErrorCode ec, size_t bytes);
  void TakeRead(ErrorCode ec, size_t bytes);
  void TakeWritten(ErrorCode ec, size_t bytes);
  void NewParser();
  void StartRead();
  void Advance();  // parses what has arrived, dispatches
  void Dispatch();
  void FailRequest(int status, const std::string& message);
  void ParseFailed(ErrorCode ec);
  void AppendHead(int status, std::string_view content_type, const Headers& headers, int64_t length);
  void Flush();
  void AnswerSent();
  void Linger();
  bool RequestLineFits() const;
  bool HeadFitsBudget();
  void ReturnHeadBudget();
  void Close();
  bool Current(uint64_t serial) const { return serial == serial_ && state_ == State::kAnswering && !ended_; }

  ConnectionHost& host_;
  const std::shared_ptr<IoThread> thread_;
  const std::unique_ptr<Transport<Connection>> transport_;
  const std::string peer_;

  State state_ = State::kHandshake;
  TimePoint deadline_ = TimePoint::max();        // of the reading state
  TimePoint write_deadline_ = TimePoint::max();  // while bytes wait to be taken
  bool draining_ = false;

  std::vector<char> read_buffer_;  // of the read that is under way: nobody else touches it
  std::string in_;                 // received, not parsed
  bool reading_ = false;
  bool large_head_ = false;  // budget is taken for headers past the first few KiB
  std::optional<MessageParser<true>> parser_;

  uint64_t serial_ = 0;
  bool started_ = false, ended_ = false, chunked_ = false, keep_alive_ = false, is_head_ = false;
  bool linger_ = false;  // part of the request may still be on its way
  bool advancing_ = false;
  std::string out_, writing_;
  size_t written_ = 0;
  bool write_in_flight_ = false;
  Task on_disconnect_;
};

}  // namespace cadre::http
