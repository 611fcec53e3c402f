#pragma once
// What the handlers of routes share, and their form.
#include <atomic>
#include <memory>
#include <mutex>
#include <set>

#include "base/log.h"
#include "serve/eplb_query.h"
#include "serve/liveness.h"
#include "serve/metrics.h"
#include "serve/openai/schema.h"
#include "serve/options.h"
#include "session/session.h"

namespace cadre::serve {

/// The ids that clients have given to requests which run now and take part in a hand-off, each with its role:
/// the other side finds a request by its id. Any thread.
class RunningIds {
 public:
  /// Null if it runs already; else it runs until the last copy of the result is gone.
  std::shared_ptr<void> Claim(const std::string& id, bool prefill);

 private:
  struct State {
    std::mutex mutex;
    std::set<std::pair<std::string, bool>> running;
  };
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

struct Api {
  const ServeOptions& options;
  const session::Session& session;
  ServeMetrics& metrics;
  int64_t started_at = 0;                 ///< Unix seconds, for /v1/models
  std::atomic<int64_t> num_in_flight{0};  ///< generation requests, for /load
  std::atomic<bool> draining{false};
  EplbQuery eplb{};
  RunningIds running_ids{};
  std::atomic<bool> whole_noted{false};  ///< said: a prefill or decode instance also serves whole requests
  LivenessQuery liveness{options.liveness_timeout};
  FieldNotes notes{[](const std::string& line) { LogInfo("{}", line); }};
};

/// Answers a request now or later; on an io thread, or on a worker for large bodies. Routes that finish in
/// one go return their response, failures as errors.
using SyncHandler = Result<http::Response> (*)(Api& api, const http::Request& request);
/// Generation: the writer is answered later, unless an error comes back.
using AsyncHandler = Status (*)(Api& api, const http::Request& request, const WriterPtr& writer);

// openai/chat.cc, openai/completions.cc
Status ChatCompletions(Api& api, const http::Request& request, const WriterPtr& writer);
Status ChatCompletionsTokens(Api& api, const http::Request& request, const WriterPtr& writer);
Status Completions(Api& api, const http::Request& request, const WriterPtr& writer);
// openai/generate.cc
Status GenerateTokens(Api& api, const http::Request& request, const WriterPtr& writer);
// openai/models.cc
Result<http::Response> Models(Api& api, const http::Request& request);
// openai/tokenize.cc
Result<http::Response> Tokenize(Api& api, const http::Request& request);
Result<http::Response> Detokenize(Api& api, const http::Request& request);
// admin.cc
Result<http::Response> Health(Api& api, const http::Request& request);
Result<http::Response> Ping(Api& api, const http::Request& request);
Result<http::Response> Version(Api& api, const http::Request& request);
Status Load(Api& api, const http::Request& request, const WriterPtr& writer);
Status Metrics(Api& api, const http::Request& request, const WriterPtr& writer);
Status Eplb(Api& api, const http::Request& request, const WriterPtr& writer);
Result<http::Response> ResetPrefixCache(Api& api, const http::Request& request);
// placement.cc
Result<http::Response> KvTransferPlaces(Api& api, const http::Request& request);
Status HeldPrefixes(Api& api, const http::Request& request, const WriterPtr& writer);

// rl.cc
Status Pause(Api& api, const http::Request& request, const WriterPtr& writer);
Status Resume(Api& api, const http::Request& request, const WriterPtr& writer);
Status IsPaused(Api& api, const http::Request& request, const WriterPtr& writer);
Status Liveness(Api& api, const http::Request& request, const WriterPtr& writer);
Status UpdateWeights(Api& api, const http::Request& request, const WriterPtr& writer);
Status ReloadWeights(Api& api, const http::Request& request, const WriterPtr& writer);
Status InitBroadcaster(Api& api, const http::Request& request, const WriterPtr& writer);
Status InitWeightTransferEngine(Api& api, const http::Request& request, const WriterPtr& writer);
Result<http::Response> StartWeightUpdate(Api& api, const http::Request& request);
Result<http::Response> FinishWeightUpdate(Api& api, const http::Request& request);
Result<http::Response> GetWorldSize(Api& api, const http::Request& request);

// lora.cc
Status LoadLoraAdapter(Api& api, const http::Request& request, const WriterPtr& writer);
Status LoadLoraInPlace(Api& api, const http::Request& request, const WriterPtr& writer);
Status UnloadLoraAdapter(Api& api, const http::Request& request, const WriterPtr& writer);

}  // namespace cadre::serve
