#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "serve/house_testing.h"
#include "serve/openai/schema.h"

namespace cadre::serve {
namespace {

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

TEST(Serve, EchoWithoutGenerationIsThePromptAlone) {
  House house(House::Saying("hi"));
  const std::string body = R"({"prompt":"ab","max_tokens":0,"echo":true,"logprobs":1)";
  const Json full = house.PostJson("/v1/completions", body + "}");
  EXPECT_EQ(At(full, "choices.0.text"), Json("ab"));
  EXPECT_EQ(At(full, "choices.0.logprobs"),
            Parsed(R"({"text_offset":[0,1],"token_logprobs":[null,-0.5],"tokens":["a","b"],
      "top_logprobs":[null,{"b":-0.5}]})"));
  const auto events = house.Stream("/v1/completions", body + R"(,"stream":true})");
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(At(events[0], "choices.0.text"), Json("ab"));
  EXPECT_EQ(At(events[0], "choices.0.finish_reason"), Json("length"));
  EXPECT_EQ(At(events[0], "choices.0.logprobs"), At(full, "choices.0.logprobs"));
  EXPECT_EQ(house.Post("/v1/completions", R"({"prompt":"ab","max_tokens":0})").status, 400);
}

TEST(Serve, TheLastChunkHasTextAndReason) {
  FakeEngineOptions options;
  options.step_time = std::chrono::milliseconds(3);
  House house(options);
  const auto text = house.Stream("/v1/completions", R"({"prompt":"abcd","max_tokens":4,"stream":true})");
  EXPECT_EQ(At(text.back(), "choices.0.text"), Json("d"));
  EXPECT_EQ(At(text.back(), "choices.0.finish_reason"), Json("length"));
  const auto chat = house.Stream(
      "/v1/chat/completions",
      R"({"messages":[{"role":"user","content":"hi"}],"max_completion_tokens":3,"stream":true})");
  EXPECT_EQ(At(chat.back(), "choices.0.delta.content"), Json("e"));
  EXPECT_EQ(At(chat.back(), "choices.0.finish_reason"), Json("length"));
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

// A member of another route, of any type, is a name that nobody knows here.
TEST(Serve, ChatTakesNoTokens) {
  House house(House::Saying("yes"));
  const std::string body = R"({"messages":[{"role":"user","content":"a"}],"tokens":)";
  for (const char* tokens : {"3", "[1,2,3]", R"(["a"])", "{}"}) {
    const Json got = house.PostJson("/v1/chat/completions", body + tokens + "}");
    EXPECT_EQ(At(got, "choices.0.message.content"), Json("yes")) << tokens;
  }
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
           "top_logprobs"},
          {chat, R"({"messages":[{"role":"user","content":"a"}],"prompt_logprobs":25})", "prompt_logprobs"},
          {text, R"({"prompt":"a","temperature":1e400})", "temperature"},
          {text, R"({"prompt":"a","logit_bias":{"5":1e400}})", "logit_bias"},
          {text, R"({"prompt":"a","logit_bias":{"5":-1e400}})", "logit_bias"},
          {text, R"({"prompt":"a\ud800b"})", "body"},
          {text, R"({"prompt":"a","response_format":{"x":"text"}})", "response_format"},
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
          {"/v1/chat/completions/tokens", R"({"messages":[{"role":"user","content":"a"}],"tokens":3})",
           "tokens"},
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

TEST(Serve, MessagesAreShortAndSayWhere) {
  House house;
  const auto message = [&](const std::string& path, const std::string& body) {
    const http::Response response = house.Post(path, body);
    EXPECT_GE(response.status, 400) << response.body;
    return At(Parsed(response.body), "error.message").AsString();
  };
  const std::string text = "/v1/completions";
  EXPECT_EQ(message(text, R"({"prompt":"a","temperature":1e308})"),
            "temperature must be a number between -1e+300 and 1e+300, got 1e+308");
  EXPECT_EQ(message(text, R"({"prompt":"a","priority":3e9})"),
            "priority must be at least -2147483648 and at most 2147483647, got 3000000000");
  EXPECT_EQ(message(text, R"({"prompt":"a","truncate_prompt_tokens":-2})"),
            "truncate_prompt_tokens must be at least -1, got -2");
  EXPECT_EQ(message(text, R"({"prompt":"a","best_of":2})"),
            "'best_of' is not supported: it is gone from vLLM as well; use 'n'");
  EXPECT_EQ(
      message(text, R"({"prompt":"a\ud800b"})"),
      "the body is not valid JSON at byte 12: the escape \\ud800 is one half of a surrogate pair without "
      "the other");
  EXPECT_THAT(message(text, R"({"prompt":"a\ud83d\ude00\udc00"})"),
              testing::HasSubstr("byte 24: the escape \\udc00"));
  EXPECT_THAT(message(text, R"({"prompt":"\ud83d\u0041"})"),
              testing::HasSubstr("byte 11: the escape \\ud83d"));
  std::string umlauts;
  for (int i = 0; i < 3000; ++i) umlauts += "\u00fc";
  for (const std::string& body : {R"({"prompt":"a","model":")" + umlauts + "\"}",
                                  R"({"prompt":"a","logit_bias":{")" + umlauts + R"(":1}})",
                                  R"({"prompt":"a","truncation_side":")" + umlauts + "\"}"}) {
    const std::string got = message(text, body);
    EXPECT_LT(got.size(), 250u);
    EXPECT_THAT(got, testing::HasSubstr("\u00fc\u2026"));
  }
  const std::string chat = R"({"messages":[{"role":"user","content":[{"type":")" + umlauts + "\"}]}]}";
  EXPECT_LT(message("/v1/chat/completions", chat).size(), 300u);
  EXPECT_LT(message("/" + std::string(5000, 'x'), "{}").size(), 250u);
}

TEST(Serve, OnlyJsonIsTaken) {
  House house;
  const std::string body = R"({"prompt":"a","max_tokens":1})";
  const auto with = [&](const std::string& type) {
    return house.Post("/v1/completions", body, {{"Content-Type", type}});
  };
  EXPECT_EQ(house.Post("/v1/completions", body).status, 200);
  EXPECT_EQ(with("Application/JSON").status, 200);
  EXPECT_EQ(with("application/json ; charset=utf-8").status, 200);
  for (const char* bad :
       {"text/plain", "application/x-www-form-urlencoded", "application/jsonx", "application"}) {
    const http::Response response = with(bad);
    EXPECT_EQ(response.status, 400) << bad;
    EXPECT_THAT(At(Parsed(response.body), "error.message").AsString(),
                testing::HasSubstr("Only 'application/json' is allowed"));
    EXPECT_EQ(house.Post("/tokenize", body, {{"Content-Type", bad}}).status, 400);
  }
  EXPECT_EQ(house.Post("/ping", "", {{"Content-Type", "text/plain"}}).status, 200);
}

TEST(Serve, HeadIsGetWithoutItsBody) {
  House house;
  for (const char* path : {"/health", "/v1/models", "/metrics"}) {
    const http::Response head = *house.client->Fetch({"HEAD", path});
    EXPECT_EQ(head.status, 200) << path;
    EXPECT_TRUE(head.body.empty());
  }
  EXPECT_EQ(house.client->Fetch({"HEAD", "/v1/completions"})->status, 405);
}

TEST(Serve, NeutralAndNullFieldsAreFine) {
  House house;
  EXPECT_EQ(house.Post("/v1/completions", R"({"prompt":"a","response_format":{"type":"text","x":1}})").status,
            200);
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

}  // namespace
}  // namespace cadre::serve
