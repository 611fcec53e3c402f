#pragma once
// The server that `cadre bench serve` loads: where it is, what it serves, and what a request to it looks
// like.
#include <memory>
#include <string>
#include <vector>

#include "app/random_prompts.h"
#include "config/command_options.h"
#include "http/client.h"
#include "session/text_model.h"

namespace cadre::app {

struct ServerUrl {
  bool tls = false;
  std::string host;
  int port = 0;
  std::string prefix;  ///< path before the endpoints; "" or "/x"

  std::string Text() const;
};

/// "https://host:8443/prefix", "http://[::1]:8000". Errors: kInvalidArgument naming --base-url.
Result<ServerUrl> ParseServerUrl(const std::string& url);

/// A running server, asked once what it serves.
class ServeTarget {
 public:
  /// Waits --ready-check-timeout-sec for the server. Errors: kInvalidArgument for flags, kUnavailable if no
  /// server answers, what the server says otherwise.
  static Result<std::unique_ptr<ServeTarget>> Connect(const config::BenchServeOptions& options);

  http::Client& client() { return *client_; }
  const std::string& model() const { return model_; }  ///< as requests name it
  const std::string& folder() const {
    return folder_;
  }  ///< of tokenizer or model on this host; empty: unknown
  const std::string& tokenizer_name() const { return tokenizer_name_; }
  int64_t vocab_size() const { return vocab_size_; }
  bool is_local() const;  ///< on this host, by its address

  /// Request `index` for that prompt. The body is made here, so call it before the clock starts.
  http::ClientRequest MakeRequest(const RandomPrompt& prompt, const std::string& id) const;

 private:
  explicit ServeTarget(const config::BenchServeOptions& options) : options_(options) {}
  Status ReadHeaders();
  Result<Json> AskModels();
  Status ChooseModel(const Json& models);
  Status FindVocabulary();
  std::string Body(const RandomPrompt& prompt) const;

  const config::BenchServeOptions& options_;
  bool chat_ = false;
  ServerUrl url_;
  std::string endpoint_;
  http::Headers headers_;
  std::unique_ptr<http::Client> client_;
  std::string model_, folder_, tokenizer_name_, root_;
  int64_t vocab_size_ = 0;
  std::shared_ptr<const session::TextModel> text_;  // chats only
};

}  // namespace cadre::app
