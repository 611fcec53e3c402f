#include "app/load_generator.h"

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <limits>
#include <mutex>
#include <random>

#include "base/json.h"

namespace cadre::app {
namespace {

constexpr size_t kMaxErrorBytes = 64 << 10;   // of a body that is no answer
constexpr size_t kMaxAnswerBytes = 64 << 20;  // of a whole answer
constexpr auto kProgressInterval = std::chrono::milliseconds(200);

void SkipSpaces(std::string_view& text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\n')) text.remove_prefix(1);
}

bool Take(std::string_view& text, char c) {
  SkipSpaces(text);
  if (!text.starts_with(c)) return false;
  text.remove_prefix(1);
  return true;
}

// The server's own words, cut to one line.
std::string ErrorText(std::string_view body) {
  const auto json = Json::Parse(body);
  if (json) {
    const Json* error = json->Find("error");
    const Json* message = error != nullptr ? error->Find("message") : nullptr;
    if (message != nullptr && message->is_string()) return message->AsString();
  }
  return std::string(body.substr(0, 300));
}

int64_t Count(const Json& usage, const char* key) {
  const Json* count = usage.Find(key);
  return count != nullptr && count->is_int() ? count->AsInt() : 0;
}

}  // namespace

bool HasChoice(std::string_view chunk) {
  constexpr std::string_view kKey = "\"choices\"";  // inside a string the quotes would be escaped
  const size_t at = chunk.find(kKey);
  if (at == std::string_view::npos) return false;
  chunk.remove_prefix(at + kKey.size());
  return Take(chunk, ':') && Take(chunk, '[') && Take(chunk, '{');
}

AnswerReader::AnswerReader(RequestRecord& record, bool stream, bool keep_text)
    : record_(record), stream_(stream), keep_text_(keep_text) {}

void AnswerReader::OnHead(int status) {
  status_ = status;
}

void AnswerReader::OnBody(std::string_view bytes) {
  if (status_ != 200 || !stream_) {
    const size_t limit = status_ == 200 ? kMaxAnswerBytes : kMaxErrorBytes;
    body_ += bytes.substr(0, limit - std::min(limit, body_.size()));
    return;
  }
  events_.Push(bytes, [this](std::string_view data) { OnEvent(data); });
}

void AnswerReader::OnEvent(std::string_view data) {
  if (data == "[DONE]") {
    done_ = true;
  } else if (HasChoice(data)) {
    OnChunk(Now());
    if (keep_text_) AppendText(data);
  } else {
    TakeUsage(data);
  }
}

void AnswerReader::OnChunk(TimePoint now) {
  const double since = Seconds(now - record_.start);
  if (record_.ttft == 0) {
    record_.ttft = since;
  } else {
    record_.itl.push_back(Seconds(now - last_));
  }
  last_ = now;
  record_.latency = since;
}

void AnswerReader::TakeUsage(std::string_view data) {
  const auto json = Json::Parse(data);
  if (!json) {
    record_.error = Format("a chunk is no JSON: {}", json.error().message);
    return;
  }
  if (json->Find("error") != nullptr) {
    record_.error = ErrorText(data);
    return;
  }
  if (const Json* usage = json->Find("usage"); usage != nullptr && usage->is_object()) {
    record_.output_tokens = Count(*usage, "completion_tokens");
    if (const int64_t prompt = Count(*usage, "prompt_tokens"); prompt > 0) record_.prompt_len = prompt;
  }
}

void AnswerReader::AppendText(std::string_view data) {
  const auto json = Json::Parse(data);
  const Json* choices = json ? json->Find("choices") : nullptr;
  if (choices == nullptr || !choices->is_array() || choices->AsArray().empty()) return;
  const Json& choice = choices->AsArray().front();
  const Json* text = choice.Find("text");
  for (const char* part : {"delta", "message"}) {
    if (const Json* message = choice.Find(part); text == nullptr && message != nullptr)
      text = message->Find("content");
  }
  if (text != nullptr && text->is_string()) record_.text += text->AsString();
}

void AnswerReader::OnWhole() {
  OnChunk(Now());
  done_ = HasChoice(body_);
  if (!done_) record_.error = "the answer has no choices: " + body_.substr(0, 300);
  TakeUsage(body_);
  if (keep_text_) AppendText(body_);
}

void AnswerReader::OnDone(const Status& status) {
  if (!status) {
    record_.error = status.error().message;
  } else if (status_ != 200) {
    record_.error = Format("HTTP status {}: {}", status_, ErrorText(body_));
  } else if (!stream_) {
    OnWhole();
  } else if (record_.error.empty() && record_.ttft == 0) {
    record_.error = "the stream ended without a token";
  } else if (record_.error.empty() && !done_) {
    record_.error = "the stream ended without [DONE]";
  }
  // A server that sends no usage is believed to send a token a chunk.
  if (record_.output_tokens == 0 && record_.ttft > 0) {
    record_.output_tokens = static_cast<int64_t>(record_.itl.size()) + 1;
  }
  record_.success = record_.error.empty();
}

namespace {

/// Counts what is in flight; the sinks report here.
class Gate {
 public:
  void Enter() {
    const std::lock_guard lock(mutex_);
    ++in_flight_;
  }
  void Leave() {
    const std::lock_guard lock(mutex_);
    --in_flight_;
    ++done_;
    signal_.notify_one();  // under the lock: the waiter may destroy this right after
  }
  /// Waits until fewer than `limit` are in flight, or `until`.
  void WaitBelow(int64_t limit, TimePoint until) {
    std::unique_lock lock(mutex_);
    const auto free = [&] { return in_flight_ < limit; };
    until == TimePoint::max() ? signal_.wait(lock, free) : (void)signal_.wait_until(lock, until, free);
  }
  bool IsBelow(int64_t limit) {
    const std::lock_guard lock(mutex_);
    return in_flight_ < limit;
  }
  size_t done() {
    const std::lock_guard lock(mutex_);
    return done_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable signal_;
  int64_t in_flight_ = 0;
  size_t done_ = 0;
};

class Sink final : public http::ResponseSink {
 public:
  Sink(RequestRecord& record, const LoadOptions& options, Gate& gate)
      : reader_(record, options.stream, options.keep_text), gate_(gate) {}
  void OnHead(int status, const http::Headers&) override { reader_.OnHead(status); }
  void OnBody(std::string_view bytes) override { reader_.OnBody(bytes); }
  void OnDone(Status status) override {
    reader_.OnDone(status);
    gate_.Leave();
  }

 private:
  AnswerReader reader_;
  Gate& gate_;
};

void WaitFor(Gate& gate, int64_t limit, const LoadOptions& options) {
  while (!gate.IsBelow(limit)) {
    gate.WaitBelow(limit, options.progress ? Now() + kProgressInterval : TimePoint::max());
    if (options.progress) options.progress(gate.done());
  }
}

void SleepUntil(TimePoint due, Gate& gate, const LoadOptions& options) {
  while (Now() < due) {
    // Nobody waits for the gate here: a limit of 0 never opens it, so this only sleeps.
    gate.WaitBelow(0, options.progress ? std::min(due, Now() + kProgressInterval) : due);
    if (options.progress) options.progress(gate.done());
  }
}

}  // namespace

LoadResult SendLoad(http::Client& client, size_t num_requests,
                    const std::function<http::ClientRequest(size_t)>& make, const LoadOptions& options) {
  LoadResult result;
  result.records.resize(num_requests);
  Gate gate;
  result.start = Now();
  const int64_t limit = options.max_concurrency.value_or(std::numeric_limits<int64_t>::max());
  for (size_t i = 0; i < num_requests; ++i) {
    http::ClientRequest request = make(i);
    if (!options.delays.empty()) {
      const auto delay = std::chrono::duration_cast<Duration>(
          std::chrono::duration<double>(std::min(options.delays[i], 1e9)));
      SleepUntil(result.start + delay, gate, options);
    }
    WaitFor(gate, limit, options);
    gate.Enter();
    result.records[i].start = Now();
    client.Send(std::move(request), std::make_shared<Sink>(result.records[i], options, gate));
  }
  WaitFor(gate, 1, options);
  result.duration = SecondsSince(result.start);
  return result;
}

std::vector<double> ArrivalTimes(size_t num_requests, double rate, double burstiness, uint64_t seed) {
  if (!std::isfinite(rate) || num_requests == 0) return {};
  std::mt19937_64 engine(seed);
  std::gamma_distribution<double> gap(burstiness, 1 / (rate * burstiness));
  std::vector<double> times(num_requests);
  double now = 0;
  for (double& time : times) time = now += std::isfinite(burstiness) ? gap(engine) : 1 / rate;
  const double wanted = static_cast<double>(num_requests) / rate;
  if (now > 0) {
    for (double& time : times) time *= wanted / now;
  }
  return times;
}

}  // namespace cadre::app
