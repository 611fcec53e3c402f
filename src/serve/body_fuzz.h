#pragma once
// For the fuzz programs: one handler, run to its end in this thread. Whatever the bytes are, the answer must
// be JSON (or a stream of it), or an error that the client can be told.
#include <cstdint>

#include "base/check.h"
#include "serve/api.h"
#include "serve/errors.h"
#include "session/fake_text.h"

namespace cadre::serve {

/// Says three tokens at once, inside Submit.
class InstantEngine final : public engine::Engine {
 public:
  class Handle final : public engine::RequestHandle {
    void Cancel() override {}
    int rank() const override { return 0; }
  };
  const engine::ModelInfo& model_info() const override { return info_; }
  Result<std::unique_ptr<engine::RequestHandle>> Submit(engine::Request request,
                                                        std::shared_ptr<engine::EventSink> sink) override {
    for (const int32_t id : request.prompt) CADRE_CHECK(id >= 0 && id < info_.vocab_size);
    const auto count = std::min<int64_t>(request.sampling.max_tokens, 3);
    CADRE_CHECK(static_cast<int64_t>(request.prompt.size()) + count <= info_.max_model_len);
    std::vector<engine::Logprobs> prompt_logprobs;
    if (request.sampling.prompt_logprobs) prompt_logprobs.resize(request.prompt.size());
    sink->OnPrompt(0, std::move(prompt_logprobs));
    std::vector<engine::GeneratedToken> tokens;
    for (int i = 0; i < count; ++i) {
      engine::GeneratedToken token{static_cast<int32_t>(i == 1 ? 0xc3 : 'a'), {}};
      if (request.sampling.logprobs)
        token.logprobs = {{token.token, -1, 1}, {token.token, -1, 1}, {98, -2, 2}};
      tokens.push_back(std::move(token));
    }
    sink->OnFinish(std::move(tokens),
                   {.reason = engine::FinishReason::kLength, .stop_token = {}, .error = {}, .times = {}});
    return std::make_unique<Handle>();
  }
  std::vector<engine::RankStats> Stats() const override { return {}; }
  Status Health() const override { return {}; }
  Status ResetPrefixCache() override { return {}; }
  void Drain(TimePoint) override {}

 private:
  engine::ModelInfo info_{.vocab_size = 257, .max_model_len = 512, .num_kv_blocks = 100, .block_size = 16};
};

/// Runs posted tasks at once and checks that what is sent is JSON.
class CheckingWriter final : public http::ResponseWriter {
 public:
  void Send(http::Response response) override { CADRE_CHECK(Json::Parse(response.body).has_value()); }
  void StartStream(int, std::string, http::Headers) override {}
  void Write(std::string_view bytes) override {
    while (!bytes.empty()) {
      const size_t end = bytes.find("\n\n");
      CADRE_CHECK(end != std::string_view::npos && bytes.starts_with("data: "));
      const std::string_view data = bytes.substr(6, end - 6);
      CADRE_CHECK(data == "[DONE]" || Json::Parse(data).has_value());
      bytes.remove_prefix(end + 2);
    }
  }
  void End() override {}
  void OnDisconnect(http::Task) override {}
  void Post(http::Task task) override { task(); }
};

inline int FuzzBody(AsyncHandler handler, std::string_view bytes) {
  static InstantEngine engine;
  static const session::Session session({}, engine, std::make_shared<session::FakeText>());
  static MetricsRegistry registry;
  static ServeMetrics metrics(registry, "fuzz", engine);
  static ServeOptions options = [] {
    ServeOptions made;
    made.served_model_names = {"fuzz"};
    made.trust_request_chat_template = true;
    return made;
  }();
  static Api api{.options = options,
                 .session = session,
                 .metrics = metrics,
                 .started_at = 0,
                 .num_in_flight = 0,
                 .draining = false};
  http::Request request;
  request.method = "POST";
  request.body = bytes;
  const Status status = handler(api, request, std::make_shared<CheckingWriter>());
  if (!status.has_value()) CADRE_CHECK(Json::Parse(ErrorResponse(status.error()).body).has_value());
  CADRE_CHECK(api.num_in_flight == 0);
  return 0;
}

}  // namespace cadre::serve
