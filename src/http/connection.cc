#include "http/connection.h"

#include <malloc.h>

#include <charconv>
#include <ctime>

#include "base/caught.h"
#include "base/log.h"

namespace cadre::http {
namespace {

// While an answer is running, this much of what follows is read ahead; then reading rests.
constexpr size_t kReadAheadBytes = 64 << 10;
constexpr size_t kHeadReadBytes = 4 << 10;
constexpr size_t kBodyReadBytes = 64 << 10;
// After an error answer the rest of the request is read and thrown away this long, so that the client gets to
// read the answer before the reset.
constexpr auto kLingerTime = std::chrono::seconds(2);

class Writer final : public ResponseWriter {
 public:
  Writer(std::shared_ptr<Connection> connection, uint64_t serial)
      : connection_(std::move(connection)), serial_(serial) {}
  ~Writer() override {
    // By the mailbox, also on the io thread: an answer that another thread gave may still be on its way
    // there.
    IoThread& thread = connection_->thread();
    if (thread.IsCurrent() && !connection_->IsOpen(serial_)) return;
    thread.Post([connection = connection_, serial = serial_] { connection->Abandoned(serial); });
  }
  void Send(Response response) override {
    Run([serial = serial_, response = std::move(response)](Connection& c) mutable {
      c.Send(serial, std::move(response));
    });
  }
  void StartStream(int status, std::string content_type, Headers headers) override {
    Run([serial = serial_, status, content_type = std::move(content_type), headers = std::move(headers)](
            Connection& c) { c.StartStream(serial, status, content_type, headers); });
  }
  void Write(std::string_view bytes) override {
    if (connection_->thread().IsCurrent()) return connection_->WriteBody(serial_, bytes);
    Run([serial = serial_, copy = std::string(bytes)](Connection& c) { c.WriteBody(serial, copy); });
  }
  void End() override {
    Run([serial = serial_](Connection& c) { c.EndBody(serial); });
  }
  void OnDisconnect(Task callback) override {
    Run([serial = serial_, callback = std::move(callback)](Connection& c) mutable {
      c.SetOnDisconnect(serial, std::move(callback));
    });
  }
  void Post(Task task) override { connection_->thread().Post(std::move(task)); }

 private:
  template <typename Call>
  void Run(Call call) {
    if (connection_->thread().IsCurrent()) {
      call(*connection_);
    } else {
      IoThread& thread = connection_->thread();
      thread.Post([connection = connection_, call = std::move(call)]() mutable { call(*connection); });
    }
  }

  const std::shared_ptr<Connection> connection_;
  const uint64_t serial_;
};

// Header values come from requests in places (ids, origins): no control character may start a new line.
void AppendHeaderLine(std::string& out, std::string_view name, std::string_view value) {
  out += name;
  out += ": ";
  for (const char c : value) out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? ' ' : c;
  out += "\r\n";
}

void AppendDate(std::string& out) {
  thread_local time_t cached_at = 0;
  thread_local char text[40];
  const time_t now = time(nullptr);
  if (now != cached_at) {
    tm parts;
    gmtime_r(&now, &parts);
    strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &parts);
    cached_at = now;
  }
  AppendHeaderLine(out, "Date", text);
}

void AppendChunk(std::string& out, std::string_view bytes) {
  char size[20];
  const auto end = std::to_chars(size, size + sizeof size, bytes.size(), 16);
  out.append(size, end.ptr);
  out += "\r\n";
  out += bytes;
  out += "\r\n";
}

bool WantsContinue(const Headers& headers) {
  const std::string* expect = FindHeader(headers, "Expect");
  return expect != nullptr && EqualNoCase(*expect, "100-continue");
}

}  // namespace

Connection::Connection(ConnectionHost& host, std::shared_ptr<IoThread> thread,
                       std::unique_ptr<Transport<Connection>> transport, std::string peer)
    : host_(host), thread_(std::move(thread)), transport_(std::move(transport)), peer_(std::move(peer)) {}

void Connection::Start() {
  deadline_ = Now() + host_.options->header_timeout;
  transport_->Handshake(true, shared_from_this());
}

void Connection::OnHandshake(ErrorCode ec) {
  if (state_ == State::kClosed) return;
  if (ec) {
    LogDebug("{}: TLS handshake failed: {}", peer_, ec.message());
    return Close();
  }
  NewParser();
  // A fresh connection that says nothing is held to the time of a request's headers.
  deadline_ = Now() + host_.options->header_timeout;
  StartRead();
}

void Connection::NewParser() {
  const ServerOptions& options = *host_.options;
  parser_.emplace(options.max_header_bytes, options.max_header_count, host_.budget);
  parser_->body_limit(static_cast<uint64_t>(options.max_body_bytes));
  parser_->on_header = [this] {
    state_ = State::kBody;
    if (WantsContinue(parser_->headers) && parser_->version >= 11) {
      out_ += "HTTP/1.1 100 Continue\r\n\r\n";
      Flush();
    }
  };
  ReturnHeadBudget();
  if (in_.empty() && in_.capacity() > 2 * kHeadReadBytes)
    in_ = std::string();  // idle connections cost little
  state_ = State::kIdle;
  deadline_ = Now() + options.keep_alive_timeout;
  started_ = ended_ = chunked_ = is_head_ = false;
  keep_alive_ = false;
}

void Connection::StartRead() {
  if (reading_ || state_ == State::kClosed) return;
  if (state_ == State::kAnswering && in_.size() >= kReadAheadBytes) return;
  reading_ = true;
  const size_t room = state_ == State::kBody ? kBodyReadBytes : kHeadReadBytes;
  if (read_buffer_.size() != room) std::vector<char>(room).swap(read_buffer_);
  transport_->Read(read_buffer_.data(), read_buffer_.size(), shared_from_this());
}

// A connection for which there is no memory is closed; before its answer has begun it hears why.
void Connection::Guard(void (Connection::*event)(ErrorCode, size_t), ErrorCode ec, size_t bytes) {
  try {
    try {
      (this->*event)(ec, bytes);
    } catch (...) {
      const Error error = CaughtError();
      LogError("{}: {}", peer_, error.message);
      advancing_ = false;
      if (state_ != State::kHead && state_ != State::kBody) return Close();
      FailRequest(error.code == Code::kUnavailable ? 503 : 500, error.message);
    }
  } catch (...) {
    Close();
  }
}

void Connection::TakeRead(ErrorCode ec, size_t bytes) {
  reading_ = false;
  if (state_ == State::kClosed) return;
  if (ec) return Close();
  if (state_ == State::kLingering) return StartRead();
  in_.append(read_buffer_.data(), bytes);
  if (state_ == State::kIdle) {
    state_ = State::kHead;
    deadline_ = Now() + host_.options->header_timeout;
  } else if (state_ == State::kBody) {
    deadline_ = Now() + host_.options->body_timeout;
  }
  if (state_ != State::kAnswering) Advance();
  StartRead();
}

void Connection::Advance() {
  if (advancing_) return;  // an answer given inside the handler: the loop below goes on by itself
  advancing_ = true;
  while (state_ == State::kIdle || state_ == State::kHead || state_ == State::kBody) {
    if (state_ == State::kIdle && in_.empty()) break;
    if (state_ != State::kBody && !RequestLineFits()) {
      FailRequest(414, Format("the request line is longer than the limit of {} bytes",
                              host_.options->max_request_line_bytes));
      break;
    }
    size_t used = 0;
    ErrorCode ec;
    while (!parser_->is_done() && used < in_.size()) {
      const size_t n = parser_->put(asio::const_buffer(in_.data() + used, in_.size() - used), ec);
      used += n;
      if (ec || n == 0) break;
    }
    in_.erase(0, used);
    if (ec == beast::http::error::need_more) ec = {};
    if (ec) {
      ParseFailed(ec);
    } else if (parser_->is_done()) {
      Dispatch();
    } else {
      if (state_ == State::kIdle) state_ = State::kHead;
      if (state_ == State::kHead && !HeadFitsBudget())
        FailRequest(503, "the server holds too many bytes of requests now");
      break;
    }
  }
  advancing_ = false;
}

bool Connection::RequestLineFits() const {
  const auto limit = static_cast<size_t>(host_.options->max_request_line_bytes);
  return in_.size() <= limit || std::string_view(in_).substr(0, limit).find('\n') != std::string_view::npos;
}

// Long headers are bytes that a crowd of hostile clients could make us hold, like bodies.
bool Connection::HeadFitsBudget() {
  if (large_head_ || in_.size() <= kReadAheadBytes) return true;
  large_head_ = host_.budget->Take(host_.options->max_header_bytes);
  return large_head_;
}

void Connection::ReturnHeadBudget() {
  if (std::exchange(large_head_, false)) host_.budget->Give(host_.options->max_header_bytes);
}

void Connection::ParseFailed(ErrorCode ec) {
  using Error = beast::http::error;
  const ServerOptions& options = *host_.options;
  if (parser_->out_of_budget)
    return FailRequest(503, "the server holds too many request bodies now; try again later");
  if (ec == Error::body_limit) {
    return FailRequest(
        413, Format("the request's body is larger than the limit of {} bytes", options.max_body_bytes));
  }
  if (parser_->too_many_headers) {
    return FailRequest(431, Format("the request has more than {} headers", options.max_header_count));
  }
  if (ec == Error::header_limit || ec == Error::buffer_overflow) {
    return FailRequest(
        431, Format("the request's headers are larger than the limit of {} bytes", options.max_header_bytes));
  }
  if (ec == Error::bad_version) return FailRequest(505, "only HTTP/1.0 and HTTP/1.1 are spoken here");
  FailRequest(400, Format("the request is not valid HTTP: {}", ec.message()));
}

void Connection::FailRequest(int status, const std::string& message) {
  LogDebug("{}: {} {}", peer_, status, message);
  state_ = State::kAnswering;
  deadline_ = TimePoint::max();
  keep_alive_ = false;
  linger_ = true;
  if (std::exchange(parser_->body, {}).size() >= kTrimBodyBytes) malloc_trim(0);
  ++serial_;
  Send(serial_, host_.error_response(status, message));
}

void Connection::Dispatch() {
  state_ = State::kAnswering;
  deadline_ = TimePoint::max();
  ++serial_;
  keep_alive_ = parser_->keep_alive() && !draining_;
  is_head_ = parser_->method == "HEAD";
  Request request;
  request.method = std::move(parser_->method);
  std::string_view target = parser_->target;
  if (const size_t scheme = target.find("://"); scheme != std::string_view::npos && target.front() != '/') {
    target.remove_prefix(
        std::min(target.find('/', scheme + 3), target.size()));  // absolute form, as proxies send it
  }
  const size_t question = std::min(target.find('?'), target.size());
  request.path = PercentDecode(target.substr(0, question), false);
  request.query = std::string(target.substr(std::min(question + 1, target.size())));
  request.headers = std::move(parser_->headers);
  request.body = std::move(parser_->body);
  request.peer = peer_;
  const auto writer = std::make_shared<Writer>(shared_from_this(), serial_);
  try {
    (*host_.handler)(std::move(request), writer);
  } catch (...) {
    const Error error = CaughtError();
    LogError("{}: the handler failed: {}", peer_, error.message);
    writer->Send(host_.error_response(error.code == Code::kUnavailable ? 503 : 500, error.message));
  }
}

void Connection::AppendHead(int status, std::string_view content_type, const Headers& headers,
                            int64_t length) {
  if (draining_) keep_alive_ = false;
  out_ += Format("HTTP/1.1 {} {}\r\n", status, ReasonPhrase(status));
  AppendDate(out_);
  AppendHeaderLine(out_, "Server", "cadre");
  if (!content_type.empty()) AppendHeaderLine(out_, "Content-Type", content_type);
  if (length >= 0) out_ += Format("Content-Length: {}\r\n", length);
  if (chunked_) out_ += "Transfer-Encoding: chunked\r\n";
  if (!keep_alive_) {
    out_ += "Connection: close\r\n";
  } else if (parser_->version < 11) {
    out_ += "Connection: keep-alive\r\n";
  }
  for (const auto& [name, value] : headers) AppendHeaderLine(out_, name, value);
  out_ += "\r\n";
}

void Connection::Send(uint64_t serial, Response response) {
  if (!Current(serial) || started_) return;
  started_ = ended_ = true;
  on_disconnect_ = nullptr;
  const bool no_body = response.status == 204 || response.status == 304;
  AppendHead(response.status, response.content_type, response.headers,
             no_body ? -1 : static_cast<int64_t>(response.body.size()));
  if (!is_head_ && !no_body) out_ += response.body;
  Flush();
}

void Connection::StartStream(uint64_t serial, int status, const std::string& content_type,
                             const Headers& headers) {
  if (!Current(serial) || started_) return;
  started_ = true;
  chunked_ = parser_->version >= 11;
  if (!chunked_) keep_alive_ = false;  // HTTP/1.0: the end of the body is the end of the connection
  AppendHead(status, content_type, headers, -1);
  Flush();
}

void Connection::WriteBody(uint64_t serial, std::string_view bytes) {
  if (!Current(serial) || !started_ || bytes.empty() || is_head_) return;
  if (static_cast<int64_t>(out_.size() + bytes.size()) > host_.options->max_stream_queue_bytes) {
    LogInfo("{}: client reads too slowly, {} bytes of its stream are waiting: cut off", peer_, out_.size());
    return Close();
  }
  if (chunked_) {
    AppendChunk(out_, bytes);
  } else {
    out_ += bytes;
  }
  Flush();
}

void Connection::EndBody(uint64_t serial) {
  if (!Current(serial) || !started_) return;
  ended_ = true;
  on_disconnect_ = nullptr;
  if (chunked_ && !is_head_) out_ += "0\r\n\r\n";
  Flush();
}

void Connection::SetOnDisconnect(uint64_t serial, Task callback) {
  if (Current(serial)) {
    on_disconnect_ = std::move(callback);
  } else if (state_ == State::kClosed && serial == serial_ && !ended_) {
    callback();
  }
}

void Connection::Abandoned(uint64_t serial) {
  if (!Current(serial)) return;
  if (started_) {
    LogError("{}: a stream was given up without its end", peer_);
    return Close();  // the missing last chunk tells the client
  }
  Send(serial, host_.error_response(500, "the request was given up without an answer"));
}

void Connection::Flush() {
  if (write_in_flight_ || state_ == State::kClosed) return;
  if (written_ == writing_.size()) {
    writing_.clear();
    written_ = 0;
    if (out_.empty()) {
      write_deadline_ = TimePoint::max();
      if (state_ == State::kAnswering && ended_) AnswerSent();
      return;
    }
    writing_.swap(out_);
  }
  if (write_deadline_ == TimePoint::max()) write_deadline_ = Now() + host_.options->write_timeout;
  write_in_flight_ = true;
  transport_->Write(writing_.data() + written_, writing_.size() - written_, shared_from_this());
}

void Connection::TakeWritten(ErrorCode ec, size_t bytes) {
  write_in_flight_ = false;
  if (state_ == State::kClosed) return;
  if (ec) return Close();
  written_ += bytes;
  write_deadline_ = TimePoint::max();
  Flush();
}

void Connection::AnswerSent() {
  if (linger_ || (!in_.empty() && !keep_alive_)) return Linger();
  if (!keep_alive_ || draining_) return Close();  // nothing is unread: what was sent still arrives
  NewParser();
  Advance();
  StartRead();
}

void Connection::Linger() {
  state_ = State::kLingering;
  deadline_ = Now() + kLingerTime;
  in_.clear();
  transport_->ShutdownSend();
  StartRead();
}

void Connection::CheckDeadline(TimePoint now) {
  if (now >= write_deadline_) {
    LogInfo("{}: the client has taken no byte for {} s: cut off", peer_,
            std::chrono::duration<double>(host_.options->write_timeout).count());
    return Close();
  }
  if (now < deadline_) return;
  if ((state_ == State::kHead && !in_.empty()) || state_ == State::kBody) {
    return FailRequest(408, "the request did not arrive in time");
  }
  Close();
}

void Connection::Drain() {
  draining_ = true;
  if (state_ == State::kIdle || state_ == State::kHandshake) Close();
}

void Connection::Abort() {
  Close();
}

void Connection::Close() {
  if (state_ == State::kClosed) return;
  const auto self = shared_from_this();
  state_ = State::kClosed;
  transport_->Close();
  if (Task callback = std::exchange(on_disconnect_, nullptr)) callback();
  parser_.reset();
  ReturnHeadBudget();
  host_.forget(this);
}

}  // namespace cadre::http
