#include "serve/gate.h"

#include <algorithm>

namespace cadre::serve {
namespace {

bool EqualConstantTime(std::string_view given, std::string_view key) {
  unsigned difference = given.size() == key.size() ? 0 : 1;
  for (size_t i = 0; i < given.size(); ++i) {
    const char other = key.empty() ? '\0' : key[i % key.size()];
    difference |= static_cast<unsigned char>(given[i] ^ other);
  }
  return difference == 0;
}

bool Contains(const std::vector<std::string>& list, std::string_view value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

std::string Join(const std::vector<std::string>& list) {
  std::string out;
  for (const std::string& entry : list) out += (out.empty() ? "" : ", ") + entry;
  return out;
}

class HeaderWriter final : public http::ResponseWriter {
 public:
  HeaderWriter(std::shared_ptr<http::ResponseWriter> inner, http::Headers headers)
      : inner_(std::move(inner)), headers_(std::move(headers)) {}
  void Send(http::Response response) override {
    response.headers.insert(response.headers.end(), headers_.begin(), headers_.end());
    inner_->Send(std::move(response));
  }
  void StartStream(int status, std::string content_type, http::Headers headers) override {
    headers.insert(headers.end(), headers_.begin(), headers_.end());
    inner_->StartStream(status, std::move(content_type), std::move(headers));
  }
  void Write(std::string_view bytes) override { inner_->Write(bytes); }
  void End() override { inner_->End(); }
  void OnDisconnect(http::Task callback) override { inner_->OnDisconnect(std::move(callback)); }
  void Post(http::Task task) override { inner_->Post(std::move(task)); }

 private:
  const std::shared_ptr<http::ResponseWriter> inner_;
  const http::Headers headers_;
};

}  // namespace

bool IsAuthorized(const ServeOptions& options, const http::Request& request) {
  if (options.api_keys.empty()) return true;
  const std::string& path = request.path;
  const auto under = [&](std::string_view prefix) { return path.starts_with(prefix); };
  // Who may not ask the model may not replace it, nor stop it for others; vLLM leaves these open.
  constexpr std::string_view kForKeys[] = {"/pause",
                                           "/resume",
                                           "/update_weights",
                                           "/reload_weights",
                                           "/init_broadcaster",
                                           "/load_lora_adapter",
                                           "/init_weight_transfer_engine",
                                           "/start_weight_update",
                                           "/kv_transfer",
                                           "/prefix_digest",
                                           "/finish_weight_update",
                                           "/chat/completions/tokens"};
  const bool listed = std::find(std::begin(kForKeys), std::end(kForKeys), path) != std::end(kForKeys);
  if (!listed && !under("/v1") && !under("/v2") && !under("/inference")) return true;
  const std::string* header = request.Header("Authorization");
  std::string_view given = header == nullptr ? std::string_view() : *header;
  const size_t space = std::min(given.find(' '), given.size());
  const bool bearer = http::EqualNoCase(given.substr(0, space), "Bearer");
  given.remove_prefix(std::min(space + 1, given.size()));
  bool any = false;
  for (const std::string& key : options.api_keys) any |= EqualConstantTime(given, key);
  return bearer && any;
}

http::Headers CorsHeaders(const CorsOptions& options, const http::Request& request) {
  const std::string* origin = request.Header("Origin");
  if (origin == nullptr || options.origins.empty()) return {};
  const bool all = Contains(options.origins, "*");
  if (!all && !Contains(options.origins, *origin)) return {};
  http::Headers out;
  // With credentials a browser accepts no star.
  out.emplace_back("Access-Control-Allow-Origin", all && !options.allow_credentials ? "*" : *origin);
  if (options.allow_credentials) out.emplace_back("Access-Control-Allow-Credentials", "true");
  if (!all || options.allow_credentials) out.emplace_back("Vary", "Origin");
  return out;
}

http::Response Preflight(const CorsOptions& options, const http::Request& request) {
  http::Response response{200, "text/plain; charset=utf-8", CorsHeaders(options, request), "OK"};
  if (response.headers.empty()) return {400, "text/plain; charset=utf-8", {}, "Disallowed CORS origin"};
  const std::string* wanted = request.Header("Access-Control-Request-Headers");
  response.headers.emplace_back("Access-Control-Allow-Methods",
                                Contains(options.methods, "*")
                                    ? "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
                                    : Join(options.methods));
  if (Contains(options.headers, "*")) {
    if (wanted != nullptr) response.headers.emplace_back("Access-Control-Allow-Headers", *wanted);
  } else {
    response.headers.emplace_back("Access-Control-Allow-Headers", Join(options.headers));
  }
  response.headers.emplace_back("Access-Control-Max-Age", "600");
  return response;
}

std::shared_ptr<http::ResponseWriter> WithHeaders(std::shared_ptr<http::ResponseWriter> writer,
                                                  http::Headers headers) {
  return std::make_shared<HeaderWriter>(std::move(writer), std::move(headers));
}

}  // namespace cadre::serve
