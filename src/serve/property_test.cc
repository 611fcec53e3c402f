// For whatever values: the schema and what it says, events and the pieces they arrive in.
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "http/sse.h"
#include "serve/errors.h"
#include "serve/openai/schema.h"

namespace cadre::serve {
namespace {

rc::Gen<std::string> AnyNumber() {
  return rc::gen::oneOf(
      rc::gen::map(rc::gen::arbitrary<int64_t>(), [](int64_t i) { return std::to_string(i); }),
      rc::gen::map(rc::gen::inRange(-500, 500), [](int e) { return Format("1e{}", e); }),
      rc::gen::map(rc::gen::inRange(-500, 500), [](int e) { return Format("-7.25e{}", e); }),
      rc::gen::element<std::string>("0", "-0", "1e400", "-1e400", "9223372036854775808", "0.5"));
}

TEST(SchemaProperty, NumbersAreInRangeOrRefusedInAShortSentence) {
  EXPECT_TRUE(rc::check("numbers", [] {
    const auto fields = *rc::gen::element(ChatFields(), CompletionFields());
    const Field field = fields[*rc::gen::inRange<size_t>(0, fields.size())];
    const std::string number = *AnyNumber();
    FieldNotes notes([](const std::string&) {});
    const auto body = ParseBody(Format(R"({{"{}":{}}})", field.name, number), fields, notes);
    if (!body.has_value()) {
      RC_ASSERT(body.error().param == field.name);
      RC_ASSERT(body.error().message.size() < 200u);
      return;
    }
    const Json* value = body->Find(field.name);
    if (!value->is_number()) return;
    RC_ASSERT(value->AsDouble() >= field.min && value->AsDouble() <= field.max);
    if (field.type == FieldType::kInt) RC_ASSERT(value->is_int());
  }));
}

TEST(ErrorProperty, AnyMessageIsValidJsonOfBoundedLength) {
  EXPECT_TRUE(rc::check("messages", [] {
    // Code points of one to four bytes.
    const auto points = *rc::gen::container<std::vector<std::string>>(
        rc::gen::element<std::string>("a", "\"", "\n", "\xc3\xbc", "\xe2\x82\xac", "\xf0\x9f\x98\x80"));
    std::string text;
    for (int repeat = *rc::gen::inRange(1, 400); repeat > 0; --repeat) {
      for (const std::string& point : points) text += point;
    }
    const auto body = Json::Parse(ErrorBody(400, text, "x"));
    RC_ASSERT(body.has_value());
    RC_ASSERT(body->Find("error")->Find("message")->AsString().size() < 4200u);
    const std::string cut = Excerpt(text);
    RC_ASSERT(cut.size() <= 103u);
    std::string quoted;
    AppendJsonString(quoted, cut);
    RC_ASSERT(Json::Parse(quoted).has_value());
    const bool is_short = text.size() <= 100;
    RC_ASSERT((is_short && cut == text) || (!is_short && text.starts_with(cut.substr(0, cut.size() - 3))));
  }));
}

TEST(SseProperty, PiecesDoNotMatter) {
  EXPECT_TRUE(rc::check("events", [] {
    const auto events = *rc::gen::container<std::vector<std::string>>(
        rc::gen::nonEmpty(rc::gen::container<std::string>(rc::gen::elementOf(std::string("ab :{}\"")))));
    std::string wire;
    for (const std::string& event : events) wire += "data: " + event + "\n\n";
    const auto sizes =
        *rc::gen::nonEmpty(rc::gen::container<std::vector<size_t>>(rc::gen::inRange<size_t>(1, 9)));
    http::SseReader reader;
    std::vector<std::string> got;
    for (size_t at = 0, i = 0; at < wire.size(); at += sizes[i++ % sizes.size()]) {
      reader.Push(std::string_view(wire).substr(at, sizes[i % sizes.size()]),
                  [&](std::string_view data) { got.emplace_back(data); });
    }
    RC_ASSERT(got == events);
  }));
}

}  // namespace
}  // namespace cadre::serve
