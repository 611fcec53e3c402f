#include "http/message.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "http/sse.h"

namespace cadre::http {
namespace {

TEST(Message, QueriesAndEscapes) {
  Request request;
  request.query = "a=1&mode=keep%20it+x&empty=&a=2";
  EXPECT_EQ(request.QueryValue("a"), "1");
  EXPECT_EQ(request.QueryValue("mode"), "keep it x");
  EXPECT_EQ(request.QueryValue("empty"), "");
  EXPECT_EQ(request.QueryValue("none"), "");
  EXPECT_EQ(PercentDecode("%41%4g%", false), "A%4g%");
}

TEST(Sse, CutsEventsFromAnyPieces) {
  const std::string text =
      ": comment\r\ndata: one\n\ndata:two\ndata: lines\r\n\r\nevent: x\n\ndata: [DONE]\n\n";
  for (size_t piece = 1; piece <= text.size(); ++piece) {
    SseReader reader;
    std::vector<std::string> events;
    for (size_t at = 0; at < text.size(); at += piece) {
      reader.Push(std::string_view(text).substr(at, piece),
                  [&](std::string_view data) { events.emplace_back(data); });
    }
    EXPECT_THAT(events, testing::ElementsAre("one", "two\nlines", "[DONE]")) << piece;
  }
}

}  // namespace
}  // namespace cadre::http
