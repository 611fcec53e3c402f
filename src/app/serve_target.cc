#include "app/serve_target.h"

#include <algorithm>
#include <thread>

#include "base/clock.h"
#include "base/log.h"
#include "checkpoint/hf_config.h"
#include "checkpoint/hub_cache.h"
#include "config/value.h"
#include "session/hf_text.h"

namespace cadre::app {
namespace {

constexpr auto kReadyInterval = std::chrono::milliseconds(100);
constexpr std::chrono::milliseconds kAnswerTimeout{6 * 3600 * 1000};  // as vLLM's client: six hours

bool IsToken(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](unsigned char c) {
    return std::isalnum(c) != 0 ||
           std::string_view("!#$%&'*+-.^_`|~").find(static_cast<char>(c)) != std::string_view::npos;
  });
}

Result<int64_t> VocabularyOf(const std::string& folder) {
  CADRE_ASSIGN(const checkpoint::ModelFiles files, checkpoint::ReadModelFiles(folder));
  const Json* size = files.config.Find("vocab_size");
  if (const Json* text = files.config.Find("text_config"); size == nullptr && text != nullptr) {
    size = text->Find("vocab_size");
  }
  if (size == nullptr || !size->is_int() || size->AsInt() < 1) {
    return Fail(Code::kDataLoss, "{}/config.json has no vocab_size", folder);
  }
  return size->AsInt();
}

void SetIf(Json& body, const char* key, const auto& value) {
  if (value) body.Set(key, *value);
}

}  // namespace

std::string ServerUrl::Text() const {
  const bool v6 = host.find(':') != std::string::npos;
  return Format("{}://{}{}{}:{}{}", tls ? "https" : "http", v6 ? "[" : "", host, v6 ? "]" : "", port, prefix);
}

Result<ServerUrl> ParseServerUrl(const std::string& url) {
  const auto bad = [&] {
    return FailParam(Code::kInvalidArgument, "--base-url",
                     "--base-url wants http://HOST:PORT or https://HOST:PORT, not '{}'", url);
  };
  ServerUrl out;
  std::string_view rest = url;
  out.tls = rest.starts_with("https://");
  if (!out.tls && !rest.starts_with("http://")) return bad();
  rest.remove_prefix(out.tls ? 8 : 7);
  const size_t slash = std::min(rest.find('/'), rest.size());
  out.prefix = rest.substr(slash);
  while (out.prefix.ends_with('/')) out.prefix.pop_back();
  std::string_view authority = rest.substr(0, slash);
  out.port = out.tls ? 443 : 80;
  const size_t bracket = authority.starts_with('[') ? authority.find(']') : 0;
  if (bracket == std::string_view::npos) return bad();
  if (const size_t colon = authority.find(':', bracket); colon != std::string_view::npos) {
    const auto port = config::ParseInt(authority.substr(colon + 1));
    if (!port || *port < 1 || *port > 65535) return bad();
    out.port = static_cast<int>(*port);
    authority = authority.substr(0, colon);
  }
  out.host = bracket > 0 ? authority.substr(1, bracket - 1) : authority;
  const bool printable = std::ranges::all_of(url, [](unsigned char c) { return c > 0x20 && c < 0x7F; });
  if (out.host.empty() || !printable) return bad();
  return out;
}

Result<std::unique_ptr<ServeTarget>> ServeTarget::Connect(const config::BenchServeOptions& options) {
  std::unique_ptr<ServeTarget> target(new ServeTarget(options));
  target->chat_ = options.backend == "openai-chat";
  target->url_ = {.tls = false, .host = options.host, .port = options.port, .prefix = {}};
  if (options.base_url) {
    CADRE_ASSIGN(target->url_, ParseServerUrl(*options.base_url));
  }
  // The flag's default is the completions endpoint; chats go to theirs.
  target->endpoint_ = options.endpoint;
  if (target->chat_ && options.endpoint == config::BenchServeOptions().endpoint)
    target->endpoint_ = "/v1/chat/completions";
  const char* wanted = target->chat_ ? "chat/completions" : "completions";
  const bool printable =
      std::ranges::all_of(options.endpoint, [](unsigned char c) { return c > 0x20 && c < 0x7F; });
  if (!target->endpoint_.ends_with(wanted) || !target->endpoint_.starts_with('/') || !printable ||
      (!target->chat_ && target->endpoint_.ends_with("chat/completions"))) {
    return FailParam(Code::kInvalidArgument, "--endpoint",
                     "--endpoint '{}' does not fit --backend {}: wanted a path that ends with {}",
                     options.endpoint, options.backend, wanted);
  }
  if (target->chat_ && options.skip_tokenizer_init) {
    return FailParam(
        Code::kInvalidArgument, "--skip-tokenizer-init",
        "chats are text, which needs a tokenizer: use --backend openai or leave --skip-tokenizer-init out");
  }
  CADRE_TRY(target->ReadHeaders());
  CADRE_ASSIGN(target->client_, http::Client::Create({.host = target->url_.host,
                                                      .port = target->url_.port,
                                                      .tls = target->url_.tls,
                                                      .tls_verify = !options.insecure}));
  CADRE_ASSIGN(const Json models, target->AskModels());
  CADRE_TRY(target->ChooseModel(models));
  CADRE_TRY(target->FindVocabulary());
  return target;
}

bool ServeTarget::is_local() const {
  return url_.host == "localhost" || url_.host == "::1" || url_.host.starts_with("127.");
}

Status ServeTarget::ReadHeaders() {
  headers_ = {{"Content-Type", "application/json"}};
  for (const std::string& pair : options_.headers) {
    const size_t equal = pair.find('=');
    const std::string name = pair.substr(0, equal);
    const std::string value = equal == std::string::npos ? "" : pair.substr(equal + 1);
    const bool clean = std::ranges::all_of(value, [](unsigned char c) { return c >= 0x20 && c != 0x7F; });
    if (equal == std::string::npos || !IsToken(name) || !clean) {
      return FailParam(Code::kInvalidArgument, "--header", "--header wants KEY=VALUE, not '{}'", pair);
    }
    std::erase_if(headers_, [&](const auto& header) { return http::EqualNoCase(header.first, name); });
    headers_.emplace_back(name, value);
  }
  return {};
}

Result<Json> ServeTarget::AskModels() {
  constexpr int64_t kLongest = 1'000'000'000;  // what the clock's type holds and more than anybody waits
  const TimePoint until = Now() + std::chrono::seconds(std::min(options_.ready_check_timeout_s, kLongest));
  while (true) {
    auto answer = client_->Fetch({.target = url_.prefix + "/v1/models",
                                  .headers = headers_,
                                  .idle_timeout = std::chrono::seconds(30)});
    const bool not_yet = !answer || answer->status == 503;
    if (!not_yet && answer->status == 200) return Json::Parse(answer->body);
    if (not_yet && Now() < until) {
      std::this_thread::sleep_for(kReadyInterval);
      continue;
    }
    if (!answer) {
      return Fail(Code::kUnavailable,
                  "no server answers at {} ({}); start one with `cadre serve MODEL`, or wait for it "
                  "with --ready-check-timeout-sec",
                  url_.Text(), answer.error().message);
    }
    const char* hint = answer->status == 401 ? "; --header 'Authorization=Bearer KEY' sends a key" : "";
    return Fail(answer->status == 401 ? Code::kUnauthenticated : Code::kUnavailable,
                "{}/v1/models answered with status {}{}", url_.Text(), answer->status, hint);
  }
}

Status ServeTarget::ChooseModel(const Json& models) {
  const Json* list = models.Find("data");
  const bool any = list != nullptr && list->is_array() && !list->AsArray().empty();
  const std::optional<std::string>& asked =
      options_.served_model_name ? options_.served_model_name : options_.model;
  if (asked) model_ = *asked;
  std::string known;
  for (size_t i = 0; any && i < list->AsArray().size(); ++i) {
    const Json* id = list->AsArray()[i].Find("id");
    const Json* root = list->AsArray()[i].Find("root");
    if (id == nullptr || !id->is_string()) continue;
    if (model_.empty()) model_ = id->AsString();
    known += (known.empty() ? "" : ", ") + id->AsString();
    if (id->AsString() == model_ && root != nullptr && root->is_string()) root_ = root->AsString();
  }
  if (model_.empty())
    return Fail(Code::kUnavailable, "{}/v1/models names no model; give --model", url_.Text());
  if (!known.empty() && root_.empty() &&
      (", " + known + ",").find(", " + model_ + ",") == std::string::npos) {
    return FailParam(Code::kNotFound, "--model", "the server at {} does not serve '{}'; it serves {}",
                     url_.Text(), model_, known);
  }
  return {};
}

// Prompts are drawn from the vocabulary, which the API does not tell: it is read from a folder on this host.
Status ServeTarget::FindVocabulary() {
  std::vector<std::string> names;
  if (options_.tokenizer) {
    names = {*options_.tokenizer};
  } else {
    if (options_.model) names.push_back(*options_.model);
    names.insert(names.end(), {model_, root_});
    std::erase(names, "");
  }
  Error last{Code::kNotFound, "", {}};
  for (const std::string& name : names) {
    const auto location = checkpoint::LocateModel(name, "", {.hf_hub_cache = options_.hub_cache});
    if (!location) {
      last = location.error();
      continue;
    }
    folder_ = location->folder;
    tokenizer_name_ = name;
    break;
  }
  if (folder_.empty()) {
    return FailParam(
        last.code, "--tokenizer",
        "random prompts need the size of the vocabulary, so --tokenizer must name the model's folder (or its "
        "name in the local hub cache): {}",
        last.message);
  }
  const auto size = VocabularyOf(folder_);
  const bool load_text = chat_ || (!size && !options_.skip_tokenizer_init);
  if (load_text) {
    CADRE_ASSIGN(text_, session::LoadHfText({.folder = folder_}));
  }
  if (!size && text_ == nullptr) return std::unexpected(size.error());
  vocab_size_ = size ? *size : text_->vocab_size();
  // A model may have more rows than its tokenizer has tokens; those have no text.
  if (chat_) vocab_size_ = std::min(vocab_size_, text_->vocab_size());
  return {};
}

std::string ServeTarget::Body(const RandomPrompt& prompt) const {
  Json body = Json::Object{{"model", model_}};
  if (chat_) {
    const std::vector<int32_t> ids(prompt.ids.begin(), prompt.ids.end());
    Json message = Json::Object{{"role", "user"}, {"content", text_->Decode(ids, true)}};
    body.Set("messages", Json::Array{std::move(message)});
    body.Set("max_completion_tokens", prompt.output_len);
  } else {
    Json ids = Json::Array();
    for (const int64_t id : prompt.ids) ids.Push(id);
    body.Set("prompt", std::move(ids));
    body.Set("max_tokens", prompt.output_len);
  }
  body.Set("stream", !options_.no_stream);
  if (!options_.no_stream) body.Set("stream_options", Json::Object{{"include_usage", true}});
  if (options_.ignore_eos) body.Set("ignore_eos", true);
  if (options_.logprobs && chat_) {
    body.Set("logprobs", true);
    body.Set("top_logprobs", *options_.logprobs);
  } else {
    SetIf(body, "logprobs", options_.logprobs);
  }
  const config::SamplingOptions& sampling = options_.sampling;
  SetIf(body, "temperature", sampling.temperature);
  SetIf(body, "top_p", sampling.top_p);
  SetIf(body, "top_k", sampling.top_k);
  SetIf(body, "min_p", sampling.min_p);
  SetIf(body, "repetition_penalty", sampling.repetition_penalty);
  SetIf(body, "presence_penalty", sampling.presence_penalty);
  SetIf(body, "frequency_penalty", sampling.frequency_penalty);
  if (options_.extra_body.is_object()) {
    for (const auto& [key, value] : options_.extra_body.AsObject()) body.Set(key, value);
  }
  return body.Dump();
}

http::ClientRequest ServeTarget::MakeRequest(const RandomPrompt& prompt, const std::string& id) const {
  http::ClientRequest request{.method = "POST",
                              .target = url_.prefix + endpoint_,
                              .headers = headers_,
                              .body = Body(prompt),
                              .idle_timeout = kAnswerTimeout};
  if (http::FindHeader(headers_, "X-Request-Id") == nullptr) request.headers.emplace_back("X-Request-Id", id);
  return request;
}

}  // namespace cadre::app
