#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "http/client.h"
#include "http/sse.h"
#include "serve/openai/schema.h"
#include "serve/routes.h"
#include "serve/server.h"
#include "session/fake_engine.h"
#include "session/fake_text.h"

namespace cadre::serve {
namespace {

using session::FakeEngine;
using session::FakeEngineOptions;
using session::FakeText;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

struct House {
  explicit House(FakeEngineOptions engine_options = {}, ServeOptions options = {}, bool with_text = true)
      : engine([&] {
          engine_options.model.vocab_size = 257;
          return engine_options;
        }()),
        session({}, engine, with_text ? std::make_shared<FakeText>() : nullptr) {
    options.http.host = "127.0.0.1";
    options.http.port = 0;
    if (options.served_model_names.empty()) options.served_model_names = {"fake", "also-fake"};
    options.version = "1.2.3";
    auto started = ApiServer::Start(options, session, registry);
    EXPECT_TRUE(started.has_value()) << started.error().message;
    server = std::move(*started);
    http::ClientOptions to;
    to.port = server->port();
    client = std::move(*http::Client::Create(to));
  }
  // Says `script`, then the end token.
  static FakeEngineOptions Saying(const std::string& script) {
    FakeEngineOptions options;
    options.next_token = [script](const engine::Request&, int i) -> int32_t {
      return static_cast<size_t>(i) >= script.size()
                 ? FakeText::kEos
                 : static_cast<unsigned char>(script[static_cast<size_t>(i)]);
    };
    return options;
  }
  http::Response Get(const std::string& path, http::Headers headers = {}) {
    return *client->Fetch({"GET", path, headers});
  }
  http::Response Post(const std::string& path, const std::string& body, http::Headers headers = {}) {
    return *client->Fetch({"POST", path, headers, body});
  }
  Json PostJson(const std::string& path, const std::string& body) {
    const http::Response response = Post(path, body);
    EXPECT_EQ(response.status, 200) << response.body;
    auto json = Json::Parse(response.body);
    EXPECT_TRUE(json.has_value()) << response.body;
    return json.value_or(Json());
  }
  // The events of a stream; the last must be [DONE].
  std::vector<Json> Stream(const std::string& path, const std::string& body) {
    const http::Response response = Post(path, body);
    EXPECT_EQ(response.status, 200) << response.body;
    EXPECT_THAT(response.content_type, HasSubstr("text/event-stream"));
    std::vector<Json> out;
    bool done = false;
    http::SseReader().Push(response.body, [&](std::string_view data) {
      EXPECT_FALSE(done);
      if (data == "[DONE]") {
        done = true;
        return;
      }
      auto json = Json::Parse(data);
      EXPECT_TRUE(json.has_value()) << data;
      if (json.has_value()) out.push_back(*json);
    });
    EXPECT_TRUE(done);
    return out;
  }

  FakeEngine engine;
  session::Session session;
  MetricsRegistry registry;
  std::unique_ptr<ApiServer> server;
  std::unique_ptr<http::Client> client;
};

// "choices.0.text" of a document; null where there is nothing.
Json At(const Json& json, std::string_view path) {
  const Json* here = &json;
  while (!path.empty()) {
    const size_t dot = std::min(path.find('.'), path.size());
    const std::string part(path.substr(0, dot));
    if (here->is_array()) {
      const size_t index = std::stoul(part);
      if (index >= here->AsArray().size()) return {};
      here = &here->AsArray()[index];
    } else {
      here = here->Find(part);
      if (here == nullptr) return {};
    }
    path.remove_prefix(std::min(dot + 1, path.size()));
  }
  return *here;
}

Json Parsed(const std::string& text) {
  return *Json::Parse(text);
}

TEST(Serve, CompletionOfText) {
  House house(House::Saying("hello"));
  const Json got =
      house.PostJson("/v1/completions", R"({"model":"also-fake","prompt":"ab","max_tokens":10})");
  EXPECT_EQ(At(got, "choices.0.text"), Json("hello"));
  EXPECT_EQ(At(got, "choices.0.finish_reason"), Json("stop"));
  EXPECT_TRUE(At(got, "choices.0.stop_reason").is_null());
  EXPECT_EQ(At(got, "object"), Json("text_completion"));
  EXPECT_EQ(At(got, "model"), Json("fake"));
  EXPECT_THAT(At(got, "id").AsString(), testing::StartsWith("cmpl-"));
  EXPECT_EQ(
      At(got, "usage"),
      Parsed(
          R"({"prompt_tokens":2,"total_tokens":8,"completion_tokens":6,"prompt_tokens_details":{"cached_tokens":0}})"));
}

TEST(Serve, CompletionPromptForms) {
  House house;
  EXPECT_EQ(At(house.PostJson("/v1/completions", R"({"prompt":[104,105],"max_tokens":4})"), "choices.0.text"),
            Json("hihi"));
  const Json texts = house.PostJson("/v1/completions", R"({"prompt":["ab","xyz"],"max_tokens":3,"n":2})");
  EXPECT_EQ(At(texts, "choices").AsArray().size(), 4u);
  EXPECT_EQ(At(texts, "choices.1.text"), Json("aba"));
  EXPECT_EQ(At(texts, "choices.2.text"), Json("xyz"));
  EXPECT_EQ(At(texts, "choices.3.index"), Json(3));
  EXPECT_EQ(At(texts, "usage.prompt_tokens"), Json(5));
  EXPECT_EQ(At(texts, "usage.completion_tokens"), Json(12));
  const Json ids = house.PostJson("/v1/completions",
                                  R"({"prompt":[[65],[66,67]],"max_tokens":2,"return_token_ids":true})");
  EXPECT_EQ(At(ids, "choices.1.text"), Json("BC"));
  EXPECT_EQ(At(ids, "choices.1.token_ids"), Parsed("[66,67]"));
  EXPECT_EQ(At(ids, "choices.1.prompt_token_ids"), Parsed("[66,67]"));
}

TEST(Serve, CompletionEchoAndLogprobs) {
  House house(House::Saying("hi"));
  const Json got =
      house.PostJson("/v1/completions", R"({"prompt":"ab","max_tokens":2,"echo":true,"logprobs":1})");
  EXPECT_EQ(At(got, "choices.0.text"), Json("abhi"));
  EXPECT_EQ(At(got, "choices.0.logprobs"),
            Parsed(R"({"text_offset":[0,1,2,3],"token_logprobs":[null,-0.5,-0.5,-0.5],
      "tokens":["a","b","h","i"],"top_logprobs":[null,{"b":-0.5},{"h":-0.5},{"i":-0.5}]})"));
  const Json only =
      house.PostJson("/v1/completions", R"({"prompt":"ab","max_tokens":0,"echo":true,"prompt_logprobs":1})");
  EXPECT_EQ(At(only, "choices.0.text"), Json("ab"));
  EXPECT_EQ(At(only, "choices.0.finish_reason"), Json("length"));
  EXPECT_EQ(At(only, "choices.0.prompt_logprobs"),
            Parsed(R"([null,{"98":{"logprob":-0.5,"rank":1,"decoded_token":"b"}}])"));
  EXPECT_EQ(At(only, "usage.completion_tokens"), Json(0));
  const Json top = house.PostJson(
      "/v1/completions", R"({"prompt":"ab","max_tokens":1,"logprobs":3,"return_tokens_as_token_ids":true})");
  EXPECT_EQ(At(top, "choices.0.logprobs.tokens"), Parsed(R"(["token_id:104"])"));
  EXPECT_EQ(At(top, "choices.0.logprobs.top_logprobs.0"),
            Parsed(R"({"token_id:104":-0.5,"token_id:105":-1,"token_id:106":-1.5})"));
}

TEST(Serve, CompletionStreamEqualsTheFullAnswer) {
  House house(House::Saying("gr\xc3\xbc\xc3\x9f \xf0\x9f\x98\x80"));
  const std::string body =
      R"({"prompt":["ab","c"],"max_tokens":20,"n":2,"echo":true,"logprobs":1,"return_token_ids":true)";
  const Json full = house.PostJson("/v1/completions", body + "}");
  const auto events =
      house.Stream("/v1/completions", body + R"(,"stream":true,"stream_options":{"include_usage":true}})");
  std::vector<std::string> texts(4);
  std::vector<Json::Array> ids(4), tokens(4), offsets(4);
  for (size_t i = 0; i + 1 < events.size(); ++i) {
    const Json choice = At(events[i], "choices.0");
    const auto index = static_cast<size_t>(At(choice, "index").AsInt());
    texts[index] += At(choice, "text").AsString();
    const auto append = [](Json::Array& to, const Json& from) {
      if (from.is_array()) to.insert(to.end(), from.AsArray().begin(), from.AsArray().end());
    };
    append(ids[index], At(choice, "token_ids"));
    append(tokens[index], At(choice, "logprobs.tokens"));
    append(offsets[index], At(choice, "logprobs.text_offset"));
  }
  for (size_t i = 0; i < 4; ++i) {
    const Json choice = At(full, Format("choices.{}", i));
    EXPECT_EQ(Json(texts[i]), At(choice, "text"));
    EXPECT_EQ(Json(ids[i]), At(choice, "token_ids"));
    EXPECT_EQ(Json(tokens[i]), At(choice, "logprobs.tokens"));
    EXPECT_EQ(Json(offsets[i]), At(choice, "logprobs.text_offset"));
  }
  EXPECT_EQ(At(events.back(), "usage"), At(full, "usage"));
  EXPECT_EQ(At(events.back(), "choices"), Parsed("[]"));
}

TEST(Serve, ChatCompletion) {
  FakeEngineOptions options = House::Saying("yes");
  options.num_cached_tokens = 3;
  House house(options);
  const Json got = house.PostJson("/v1/chat/completions",
                                  R"({"messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}],
      "logprobs":true,"top_logprobs":2,"return_token_ids":true,"user":"me","some_future_field":1,"tools":[{"type":"function"}],
      "tool_choice":"auto","chat_template_kwargs":{"mode":1},"max_completion_tokens":9,"return_prompt_text":true})");
  EXPECT_EQ(At(got, "choices.0.message.content"), Json("yes"));
  EXPECT_EQ(At(got, "choices.0.message.role"), Json("assistant"));
  EXPECT_EQ(At(got, "choices.0.message.tool_calls"), Parsed("[]"));
  EXPECT_EQ(At(got, "object"), Json("chat.completion"));
  EXPECT_EQ(At(got, "prompt_text"), Json("tools=1\nmode=1\nuser: hi\nassistant:"));
  EXPECT_EQ(At(got, "prompt_token_ids").AsArray().size(), At(got, "prompt_text").AsString().size());
  EXPECT_EQ(At(got, "choices.0.token_ids"), Parsed("[121,101,115,256]"));
  EXPECT_EQ(At(got, "usage.prompt_tokens_details.cached_tokens"), Json(3));
  // As many logprobs as tokens, the end token with them.
  EXPECT_EQ(At(got, "choices.0.logprobs.content").AsArray().size(), 4u);
  EXPECT_EQ(At(got, "choices.0.logprobs.content.0"),
            Parsed(R"({"token":"y","logprob":-0.5,"bytes":[121],"top_logprobs":[
      {"token":"y","logprob":-0.5,"bytes":[121]},{"token":"z","logprob":-1,"bytes":[122]}]})"));
}

TEST(Serve, ChatStream) {
  House house(House::Saying("yes, yes"));
  const auto events =
      house.Stream("/v1/chat/completions", R"({"messages":[{"role":"user","content":"hi"}],"stream":true,
      "stop":", y","stream_options":{"include_usage":true,"continuous_usage_stats":true}})");
  EXPECT_EQ(At(events[0], "choices.0.delta"), Parsed(R"({"role":"assistant","content":""})"));
  EXPECT_EQ(At(events[0], "object"), Json("chat.completion.chunk"));
  std::string text;
  for (const Json& event : events) {
    if (const Json piece = At(event, "choices.0.delta.content"); piece.is_string()) text += piece.AsString();
    EXPECT_FALSE(At(event, "usage").is_null());
  }
  EXPECT_EQ(text, "yes");
  const Json& last = events[events.size() - 2];
  EXPECT_EQ(At(last, "choices.0.finish_reason"), Json("stop"));
  EXPECT_EQ(At(last, "choices.0.stop_reason"), Json(", y"));
  EXPECT_EQ(At(last, "usage.completion_tokens"), Json(6));
  EXPECT_EQ(At(events.back(), "usage.completion_tokens"), Json(6));
}

struct Refused {
  const char* path;
  const char* body;
  const char* param;
};

TEST(Serve, BadBodiesAreA400ThatNamesTheField) {
  House house;
  const std::string large = "{\"prompt\":\"" + std::string(100'000, 'x') + "\"}";
  const char* chat = "/v1/chat/completions";
  const char* text = "/v1/completions";
  for (
      const Refused& bad : std::vector<Refused>{
          {text, "", "body"},
          {text, "{", "body"},
          {text, "[]", "body"},
          {text, "{\"prompt\":\"\xff\"}", "body"},
          {text, "{}", "prompt"},
          {text, R"({"prompt":5})", "prompt"},
          {text, R"({"prompt":[]})", "prompt"},
          {text, R"({"prompt":["a",1]})", "prompt"},
          {text, R"({"prompt":[[1],["a"]]})", "prompt"},
          {text, R"({"prompt":[1,-1]})", "prompt"},
          {text, R"({"prompt":[1,99999999999]})", "prompt"},
          {text, R"({"prompt":""})", "prompt"},
          {text, large.c_str(), "prompt"},
          {text, R"({"prompt":"a","max_tokens":"x"})", "max_tokens"},
          {text, R"({"prompt":"a","max_tokens":1.5})", "max_tokens"},
          {text, R"({"prompt":"a","max_tokens":0})", "max_tokens"},
          {text, R"({"prompt":"a","max_tokens":1e30})", "max_tokens"},
          {text, R"({"prompt":"a","max_tokens":99999})", "max_tokens"},
          {text, R"({"prompt":"a","temperature":-1})", "temperature"},
          {text, R"({"prompt":"a","temperature":"hot"})", "temperature"},
          {text, R"({"prompt":"a","n":0})", "n"},
          {text, R"({"prompt":"a","n":100000})", "n"},
          {text, R"({"prompt":"a","stop":["a","b","c","d","e"]})", "stop"},
          {text, R"({"prompt":"a","stop":5})", "stop"},
          {text, R"({"prompt":"a","logit_bias":{"x":1}})", "logit_bias"},
          {text, R"({"prompt":"a","logit_bias":{"1":"y"}})", "logit_bias"},
          {text, R"({"prompt":"a","logit_bias":{"300":1}})", "logit_bias"},
          {text, R"({"prompt":"a","logprobs":21})", "logprobs"},
          {text, R"({"prompt":"a","stream_options":{"include_usage":true}})", "stream_options"},
          {text, R"({"prompt":"a","stream":true,"stream_options":{"include_usage":1}})",
           "stream_options.include_usage"},
          {text, R"({"prompt":"a","stream":true,"prompt_logprobs":1})", "prompt_logprobs"},
          {text, R"({"prompt":"a","suffix":"b"})", "suffix"},
          {text, R"({"prompt":"a","use_beam_search":true})", "use_beam_search"},
          {text, R"({"prompt":"a","prompt_embeds":"x"})", "prompt_embeds"},
          {text, R"({"prompt":"a","response_format":{"type":"json_object"}})", "response_format"},
          {text, R"({"prompt":"a","structured_outputs":{"regex":"x"}})", "structured_outputs"},
          {text, R"({"prompt":"a","kv_transfer_params":{"do_remote_decode":true}})", "kv_transfer_params"},
          {text, R"({"prompt":"a","allowed_token_ids":[]})", "allowed_token_ids"},
          {text, R"({"prompt":"a","cache_salt":""})", "cache_salt"},
          {text, R"({"prompt":"a","truncation_side":"up"})", "truncation_side"},
          {text, R"({"prompt":"a","stream_interval":0})", "stream_interval"},
          {chat, "{}", "messages"},
          {chat, R"({"messages":[]})", "messages"},
          {chat, R"({"messages":"hi"})", "messages"},
          {chat, R"({"messages":[{"role":"user","content":[{"type":"image_url"}]}]})",
           "messages[0].content[0]"},
          {chat, R"({"messages":[{"role":"user","content":"a"}],"top_logprobs":2})", "top_logprobs"},
          {chat, R"({"messages":[{"role":"user","content":"a"}],"logprobs":true,"top_logprobs":25})",
           "logprobs"},
          {chat, R"({"messages":[{"role":"user","content":"a"}],"tool_choice":"required"})", "tool_choice"},
          {chat, R"({"messages":[{"role":"user","content":"a"}],"tool_choice":{"type":"function"}})",
           "tool_choice"},
          {chat, R"({"messages":[{"role":"user","content":"a"}],"tool_choice":"maybe"})", "tool_choice"},
          {chat, R"({"messages":[{"role":"user","content":"a"}],"chat_template":"x"})", "chat_template"},
          {chat, R"({"messages":[{"role":"user","content":"a"}],"max_completion_tokens":0})",
           "max_completion_tokens"},
          {chat, R"({"messages":[{"role":"user","content":"a"}],"thinking_token_budget":5})",
           "thinking_token_budget"},
          {chat,
           R"({"messages":[{"role":"user","content":"a"}],"response_format":{"type":"json_schema","json_schema":{}}})",
           "response_format"},
          {"/tokenize", "{}", "prompt"},
          {"/detokenize", "{}", "tokens"},
          {"/detokenize", R"({"tokens":[1,999]})", "tokens"},
      }) {
    const http::Response response = house.Post(bad.path, bad.body);
    const std::string_view shown = std::string_view(bad.body).substr(0, 100);
    EXPECT_EQ(response.status, 400) << shown << response.body;
    const auto error = Json::Parse(response.body);
    ASSERT_TRUE(error.has_value()) << response.body;
    EXPECT_EQ(At(*error, "error.param"), Json(bad.param)) << shown << response.body;
    EXPECT_EQ(At(*error, "error.type"), Json("BadRequestError"));
    EXPECT_EQ(At(*error, "error.code"), Json(400));
    EXPECT_FALSE(At(*error, "error.message").AsString().empty());
  }
  EXPECT_EQ(At(Parsed(house.Get("/load").body), "server_load"), Json(0));
}

TEST(Serve, NeutralAndNullFieldsAreFine) {
  House house;
  std::string body = R"({"prompt":"a","max_tokens":1)";
  for (const Field& field : CompletionFields()) {
    if (field.use == FieldUse::kRefused) body += Format(",\"{}\":{}", field.name, field.neutral);
  }
  EXPECT_EQ(house.Post("/v1/completions", body + "}").status, 200);
  body = R"({"prompt":"a")";
  for (const Field& field : CompletionFields()) {
    if (field.name != "prompt") body += Format(",\"{}\":null", field.name);
  }
  EXPECT_EQ(house.Post("/v1/completions", body + "}").status, 200);
  body = R"({"messages":[{"role":"user","content":"a"}])";
  for (const Field& field : ChatFields()) {
    if (field.name != "messages") body += Format(",\"{}\":null", field.name);
  }
  EXPECT_EQ(house.Post("/v1/chat/completions", body + "}").status, 200);
}

TEST(Serve, MaxTokensNullFillsTheContext) {
  FakeEngineOptions options;
  options.model.max_model_len = 50;
  House house(options);
  EXPECT_EQ(
      At(house.PostJson("/v1/completions", R"({"prompt":"ab","max_tokens":null})"), "usage.total_tokens"),
      Json(50));
  EXPECT_EQ(At(house.PostJson("/v1/completions", R"({"prompt":"ab"})"), "usage.total_tokens"), Json(18));
}

TEST(Serve, ModelsVersionHealthPing) {
  House house;
  const Json models = Parsed(house.Get("/v1/models").body);
  EXPECT_EQ(At(models, "data.0.id"), Json("fake"));
  EXPECT_EQ(At(models, "data.1.id"), Json("also-fake"));
  EXPECT_EQ(At(models, "data.0.max_model_len"), Json(4096));
  EXPECT_EQ(At(models, "data.0.permission.0.object"), Json("model_permission"));
  EXPECT_EQ(house.Get("/version").body, R"({"version":"1.2.3"})");
  EXPECT_EQ(house.Get("/health").status, 200);
  EXPECT_EQ(house.Get("/ping").status, 200);
  EXPECT_EQ(house.Post("/ping", "").status, 200);
  EXPECT_EQ(house.Post("/v1/completions", R"({"prompt":"a","model":"other"})").status, 404);
}

TEST(Serve, TokenizeAndDetokenize) {
  House house;
  EXPECT_EQ(Parsed(house.Post("/tokenize", R"({"prompt":"hi","return_token_strs":true})").body),
            Parsed(R"({"count":2,"max_model_len":4096,"tokens":[104,105],"token_strs":["h","i"]})"));
  EXPECT_EQ(
      At(Parsed(house.Post("/tokenize", R"({"messages":[{"role":"user","content":"hi"}]})").body), "count"),
      Json(19));
  EXPECT_EQ(house.Post("/detokenize", R"({"tokens":[104,105]})").body, R"({"prompt":"hi"})");
}

TEST(Serve, RoutesThatAreNotThere) {
  House house;
  const http::Response lost = house.Get("/v1/nothing");
  EXPECT_EQ(lost.status, 404);
  EXPECT_EQ(At(Parsed(lost.body), "error.type"), Json("NotFoundError"));
  const http::Response wrong = house.Get("/v1/completions");
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(*http::FindHeader(wrong.headers, "Allow"), "POST");
  EXPECT_EQ(At(Parsed(wrong.body), "error.code"), Json(405));
  const http::Response missing = house.Post("/v1/embeddings", "{}");
  EXPECT_EQ(missing.status, 501);
  EXPECT_THAT(missing.body, HasSubstr("not built yet"));
  EXPECT_EQ(house.Get("/v1/responses/abc").status, 501);
  EXPECT_EQ(house.Get("/v1/responses/").status, 404);
  EXPECT_EQ(house.Post("/reset_prefix_cache", "").status, 404);
  ServeOptions dev;
  dev.dev_mode = true;
  House open({}, dev);
  EXPECT_EQ(open.Post("/reset_prefix_cache", "").status, 200);
  EXPECT_EQ(open.engine.num_resets(), 1);
}

TEST(Serve, ApiKeysGuardV1) {
  ServeOptions options;
  options.api_keys = {"first", "second-key"};
  House house({}, options);
  const auto with = [&](const std::string& value) {
    return house.Get("/v1/models", {{"Authorization", value}}).status;
  };
  EXPECT_EQ(house.Get("/v1/models").status, 401);
  EXPECT_EQ(At(Parsed(house.Get("/v1/models").body), "error.type"), Json("AuthenticationError"));
  EXPECT_EQ(with("Bearer first"), 200);
  EXPECT_EQ(with("bearer second-key"), 200);
  for (const char* bad :
       {"Bearer firs", "Bearer firstfirst", "Bearer ", "Bearer", "Basic first", "first", "Bearer second"}) {
    EXPECT_EQ(with(bad), 401) << bad;
  }
  EXPECT_EQ(house.Get("/health").status, 200);
  EXPECT_EQ(house.Get("/v1/nothing").status, 401);
}

TEST(Serve, CorsAndRequestIds) {
  ServeOptions options;
  options.cors.origins = {"https://a.example"};
  options.enable_request_id_headers = true;
  options.root_path = "/llm";
  House house({}, options);
  const auto allowed =
      house.Get("/llm/v1/models", {{"Origin", "https://a.example"}, {"X-Request-Id", "my id\t1"}});
  EXPECT_EQ(allowed.status, 200);
  EXPECT_EQ(*http::FindHeader(allowed.headers, "Access-Control-Allow-Origin"), "https://a.example");
  EXPECT_EQ(*http::FindHeader(allowed.headers, "X-Request-Id"), "my id 1");
  EXPECT_EQ(http::FindHeader(house.Get("/health", {{"Origin", "https://b"}}).headers,
                             "Access-Control-Allow-Origin"),
            nullptr);
  const auto preflight =
      *house.client->Fetch({"OPTIONS",
                            "/v1/models",
                            {{"Origin", "https://a.example"}, {"Access-Control-Request-Method", "POST"}}});
  EXPECT_EQ(preflight.status, 200);
  EXPECT_THAT(*http::FindHeader(preflight.headers, "Access-Control-Allow-Methods"), HasSubstr("POST"));
  const auto got = house.Post("/v1/completions", R"({"prompt":"a"})", {{"X-Request-Id", "abc"}});
  EXPECT_EQ(At(Parsed(got.body), "id"), Json("cmpl-abc"));
  EXPECT_EQ(*http::FindHeader(got.headers, "X-Request-Id"), "abc");
}

TEST(Serve, FullQueueIs429AndComesBack) {
  FakeEngineOptions options;
  options.max_waiting = 0;
  House house(options);
  const http::Response response = house.Post("/v1/completions", R"({"prompt":"a"})");
  EXPECT_EQ(response.status, 429);
  EXPECT_NE(http::FindHeader(response.headers, "Retry-After"), nullptr);
  EXPECT_EQ(At(Parsed(response.body), "error.type"), Json("RateLimitError"));
}

TEST(Serve, EngineFailuresReachTheClient) {
  FakeEngineOptions options;
  options.fail_after = 0;
  House early(options);
  EXPECT_EQ(early.Post("/v1/completions", R"({"prompt":"a","stream":true})").status, 500);
  options.fail_after = 2;
  options.step_time = std::chrono::milliseconds(5);
  House late(options);
  EXPECT_EQ(late.Post("/v1/completions", R"({"prompt":"a","n":2})").status, 500);
  const auto events = late.Stream("/v1/completions", R"({"prompt":"a","stream":true})");
  EXPECT_EQ(At(events.back(), "error.code"), Json(500));
  const auto load = [&] { return At(Parsed(late.Get("/load").body), "server_load"); };
  for (int i = 0; i < 500 && load() != Json(0); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(4));
  EXPECT_EQ(load(), Json(0));  // what was cancelled with it leaves at the engine's next step
}

TEST(Serve, DeadEngineIs503) {
  FakeEngineOptions options;
  options.step_time = std::chrono::milliseconds(1);
  House house(options);
  house.engine.Kill("rank 3 was killed by signal 9");
  const http::Response health = house.Get("/health");
  EXPECT_EQ(health.status, 503);
  EXPECT_THAT(health.body, HasSubstr("rank 3 was killed by signal 9"));
  EXPECT_EQ(house.Post("/v1/completions", R"({"prompt":"a"})").status, 503);
}

TEST(Serve, DisconnectCancels) {
  FakeEngineOptions options;
  options.step_time = std::chrono::milliseconds(2);
  House house(options);
  struct Sink : http::ResponseSink {
    void OnHead(int, const http::Headers&) override {}
    void OnBody(std::string_view bytes) override { got += bytes.size(); }
    void OnDone(Status) override {}
    std::atomic<size_t> got{0};
  };
  for (const char* stream : {"true", "false"}) {
    const auto sink = std::make_shared<Sink>();
    const int64_t before = house.engine.num_cancelled();
    const auto call =
        house.client->Send({"POST",
                            "/v1/completions",
                            {},
                            Format(R"({{"prompt":"a","max_tokens":4000,"n":3,"stream":{}}})", stream)},
                           sink);
    for (int i = 0; i < 1000 && house.engine.Stats()[0].num_running < 3; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    call->Cancel();
    for (int i = 0; i < 1000 && house.engine.num_cancelled() < before + 3; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    EXPECT_EQ(house.engine.num_cancelled(), before + 3);
  }
}

TEST(Serve, StopDrains) {
  FakeEngineOptions options;
  options.step_time = std::chrono::milliseconds(10);
  House house(options);
  std::string answer;
  std::thread asking(
      [&] { answer = house.Post("/v1/completions", R"({"prompt":"ab","max_tokens":20})").body; });
  while (house.engine.Stats()[0].num_running == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  std::thread stopping([&] { house.server->Stop(Now() + std::chrono::seconds(10)); });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  asking.join();
  stopping.join();
  EXPECT_THAT(answer, HasSubstr("abababababababababab"));
  EXPECT_FALSE(house.client->Fetch({"GET", "/health"}).has_value());
}

TEST(Serve, StopAbortsWhatTakesTooLong) {
  FakeEngineOptions options;
  options.step_time = std::chrono::milliseconds(5);
  House house(options);
  std::string answer;
  std::thread asking(
      [&] { answer = house.Post("/v1/completions", R"({"prompt":"ab","max_tokens":4000})").body; });
  while (house.engine.Stats()[0].num_running == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  house.server->Stop(Now() + std::chrono::milliseconds(100));
  asking.join();
  EXPECT_EQ(At(Parsed(answer), "choices.0.finish_reason"), Json("abort"));
}

TEST(Serve, MetricsCarryVllmsNames) {
  House house(House::Saying("abcdef"));
  house.Post("/v1/completions", R"({"prompt":"xy","max_tokens":5,"n":2})");
  const http::Response response = house.Get("/metrics");
  EXPECT_THAT(response.content_type, HasSubstr("text/plain"));
  for (const char* line : {
           "vllm:num_requests_running{engine=\"0\",model_name=\"fake\"} 0",
           "vllm:num_requests_waiting{",
           "vllm:kv_cache_usage_perc{",
           "vllm:num_preemptions_total{",
           "vllm:prefix_cache_queries_total{",
           "vllm:prefix_cache_hits_total{",
           "vllm:prompt_tokens_total{engine=\"0\",model_name=\"fake\"} 4",
           "vllm:generation_tokens_total{engine=\"0\",model_name=\"fake\"} 10",
           "vllm:request_success_total{engine=\"0\",finished_reason=\"length\",model_name=\"fake\"} 2",
           "vllm:time_to_first_token_seconds_count{engine=\"0\",model_name=\"fake\"} 2",
           "vllm:inter_token_latency_seconds_count{engine=\"0\",model_name=\"fake\"} 8",
           "vllm:e2e_request_latency_seconds_count{engine=\"0\",model_name=\"fake\"} 2",
           "vllm:request_queue_time_seconds_count",
           "vllm:request_prefill_time_seconds_count",
           "vllm:request_decode_time_seconds_count",
           "vllm:request_inference_time_seconds_count",
           "vllm:request_time_per_output_token_seconds_count",
           "vllm:request_prompt_tokens_sum{engine=\"0\",model_name=\"fake\"} 4",
           "vllm:request_generation_tokens_bucket{engine=\"0\",model_name=\"fake\",le=\"5\"} 2",
           "vllm:request_params_max_tokens_sum{engine=\"0\",model_name=\"fake\"} 5",
           "vllm:request_params_n_sum{engine=\"0\",model_name=\"fake\"} 2",
           "vllm:cache_config_info{block_size=\"16\",engine=\"0\",kv_cache_size_tokens=\"16000\",num_gpu_"
           "blocks=\"1000\"} 1",
       }) {
    EXPECT_THAT(response.body, HasSubstr(line));
  }
}

TEST(Serve, TokenIdsAloneWithoutATokenizer) {
  House house({}, {}, false);
  const Json got = house.PostJson("/v1/completions",
                                  R"({"prompt":[1,2],"max_tokens":3,"logprobs":0,"return_token_ids":true})");
  EXPECT_EQ(At(got, "choices.0.token_ids"), Parsed("[1,2,1]"));
  EXPECT_EQ(At(got, "choices.0.logprobs.tokens"), Parsed(R"(["token_id:1","token_id:2","token_id:1"])"));
  EXPECT_EQ(At(got, "choices.0.text"), Json(""));
  EXPECT_EQ(house.Post("/v1/completions", R"({"prompt":"a"})").status, 400);
  EXPECT_EQ(house.Post("/v1/chat/completions", R"({"messages":[{"role":"user","content":"a"}]})").status,
            400);
  EXPECT_EQ(house.Post("/tokenize", R"({"prompt":"a"})").status, 400);
}

TEST(Serve, LargeBodiesTakeTheWorkersAndHugeOnesAreRefused) {
  ServeOptions options;
  options.http.max_body_bytes = 1 << 20;
  House house({}, options);
  std::string ids = "1";
  for (int i = 0; i < 4000; ++i) ids += ", 2";
  const Json got = house.PostJson("/v1/completions", "{\"prompt\":[" + ids + "],\"max_tokens\":3}");
  EXPECT_EQ(At(got, "usage.prompt_tokens"), Json(4001));
  const http::Response huge = house.Post("/v1/completions", std::string(2 << 20, ' '));
  EXPECT_EQ(huge.status, 400);
  EXPECT_EQ(At(Parsed(huge.body), "error.param"), Json("body"));
}

TEST(Schema, NoFieldIsThereTwiceAndNeutralsAreJson) {
  for (const auto fields : {ChatFields(), CompletionFields(), TokenizeFields(), DetokenizeFields()}) {
    std::set<std::string_view> seen;
    for (const Field& field : fields) {
      EXPECT_TRUE(seen.insert(field.name).second) << field.name;
      EXPECT_EQ(Json::Parse(field.neutral)->Dump(), field.neutral) << field.name;
      EXPECT_EQ(field.use == FieldUse::kWorks, field.note.empty()) << field.name;
    }
  }
}

TEST(Routes, NoneIsThereTwice) {
  std::set<std::string> seen;
  for (const Route& route : Routes()) {
    EXPECT_TRUE(seen.insert(Format("{} {}", route.method, route.path)).second) << route.path;
  }
}

}  // namespace
}  // namespace cadre::serve
