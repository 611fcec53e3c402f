#pragma once
// Requests to a running server, at set times or so many at once, and when each of their tokens came back. It
// shares the CPUs with the server that it measures, so it reads streams without building JSON values: a chunk
// is found by its first bytes, and only those with usage or an error are parsed.
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "http/client.h"
#include "http/sse.h"

namespace cadre::app {

/// How one request went. Times in seconds.
struct RequestRecord {
  bool success = false;
  std::string error;        ///< why not
  TimePoint start;          ///< sent
  double ttft = 0;          ///< until the first chunk with a choice; without streaming until the answer
  double latency = 0;       ///< until the last one
  std::vector<double> itl;  ///< between two chunks
  int64_t prompt_len = 0, output_tokens = 0;
  bool is_long = false;  ///< one of the long prompts among chats
  std::string text;      ///< only if asked for

  double tpot() const {
    return output_tokens > 1 ? (latency - ttft) / static_cast<double>(output_tokens - 1) : 0;
  }
};

/// Reads one streamed or whole answer.
class AnswerReader {
 public:
  AnswerReader(RequestRecord& record, bool stream, bool keep_text);
  void OnHead(int status);
  void OnBody(std::string_view bytes);
  /// The connection has ended as `status` says; fills success and error.
  void OnDone(const Status& status);

 private:
  void OnEvent(std::string_view data);
  void OnChunk(TimePoint now);
  void OnWhole();
  void TakeUsage(std::string_view data);
  void AppendText(std::string_view data);

  RequestRecord& record_;
  const bool stream_, keep_text_;
  int status_ = 0;
  bool done_ = false;  // [DONE] or a whole body
  TimePoint last_;
  http::SseReader events_;
  std::string body_;  // of errors and of whole answers
};

/// Whether a chunk of a stream holds a choice: "choices":[{ and not "choices":[].
bool HasChoice(std::string_view chunk);

struct LoadOptions {
  std::optional<int64_t> max_concurrency;
  std::vector<double> delays;  ///< seconds after the begin at which request i is due; empty: at once
  bool stream = true;
  bool keep_text = false;
  std::function<void(size_t done)> progress = {};  ///< called now and then on the calling thread
};

struct LoadResult {
  std::vector<RequestRecord> records;  ///< in the order of the requests
  TimePoint start;
  double duration = 0;
};

/// Sends request i with the body that `make` gives, waits for all. `make` is called on this thread just
/// before.
LoadResult SendLoad(http::Client& client, size_t num_requests,
                    const std::function<http::ClientRequest(size_t)>& make, const LoadOptions& options);

/// When requests are due: `rate` a second; 1 is a Poisson process, below it burstier, above more even
/// (gamma). Scaled so that the last is due after num_requests / rate. Infinite rate: all at 0.
std::vector<double> ArrivalTimes(size_t num_requests, double rate, double burstiness, uint64_t seed);

}  // namespace cadre::app
