#pragma once
// For tests: the whole front over a FakeEngine and FakeText, with a client at its door.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "http/client.h"
#include "http/sse.h"
#include "serve/server.h"
#include "session/fake_engine.h"
#include "session/fake_text.h"

namespace cadre::serve {

using session::FakeEngine;
using session::FakeEngineOptions;
using session::FakeText;

struct House {
  explicit House(FakeEngineOptions engine_options = {}, ServeOptions options = {}, bool with_text = true,
                 std::shared_ptr<const session::TextModel> text = std::make_shared<FakeText>())
      : engine([&] {
          engine_options.model.vocab_size = 257;
          return engine_options;
        }()),
        session({}, engine, with_text ? std::move(text) : nullptr) {
    options.http.host = "127.0.0.1";
    options.http.port = 0;
    if (options.served_model_names.empty()) options.served_model_names = {"fake", "also-fake"};
    options.version = "1.2.3";
    auto started = ApiServer::Open(options, registry);
    EXPECT_TRUE(started.has_value()) << started.error().message;
    server = std::move(*started);
    server->Serve(session);
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
    EXPECT_THAT(response.content_type, testing::HasSubstr("text/event-stream"));
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
inline Json At(const Json& json, std::string_view path) {
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

inline Json Parsed(const std::string& text) {
  return *Json::Parse(text);
}

}  // namespace cadre::serve
