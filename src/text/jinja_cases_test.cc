// A thousand small templates against what Jinja2 makes of them (tools/make_jinja_cases.py writes the table;
// with CADRE_JINJA_CASES another table of the same form is tried).
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "text/chat_template.h"

namespace cadre {
namespace {

Result<std::string> RenderCase(const std::string& source, const Json& context) {
  RenderLimits limits;
  limits.now.emplace();
  *limits.now = {.tm_sec = 26,
                 .tm_min = 9,
                 .tm_hour = 15,
                 .tm_mday = 14,
                 .tm_mon = 2,
                 .tm_year = 126,
                 .tm_wday = 6,
                 .tm_yday = 72,
                 .tm_isdst = 0,
                 .tm_gmtoff = 0,
                 .tm_zone = nullptr};
  CADRE_ASSIGN(const ChatTemplate compiled, ChatTemplate::Compile(source));
  return compiled.Render(context, limits);
}

TEST(JinjaCases, AsJinja2) {
  const char* other = std::getenv("CADRE_JINJA_CASES");
  std::ifstream in(other != nullptr ? other : CADRE_SOURCE_DIR "/src/text/testdata/jinja_cases.json");
  std::stringstream text;
  text << in.rdbuf();
  auto table = Json::Parse(text.str());
  ASSERT_TRUE(table.has_value()) << table.error().message;
  const Json& context = *table->Find("context");
  size_t num_cases = 0;
  for (const Json& c : table->Find("cases")->AsArray()) {
    const std::string& source = c.Find("template")->AsString();
    const auto got = RenderCase(source, context);
    ++num_cases;
    if (const Json* want = c.Find("text")) {
      if (got.has_value()) {
        EXPECT_EQ(*got, want->AsString()) << source;
      } else {
        ADD_FAILURE() << source << "\n  got:    " << got.error().message
                      << "\n  wanted: " << want->AsString();
      }
      continue;
    }
    const std::string& want = c.Find("error")->AsString();
    if (got.has_value()) {
      ADD_FAILURE() << source << "\n  got:    " << *got << "\n  wanted: " << want;
      continue;
    }
    constexpr std::string_view kTemplate = "template: ";
    if (want.starts_with(kTemplate)) {
      // Jinja's own messages are kept word for word, after the place.
      EXPECT_TRUE(got.error().message.ends_with(want.substr(kTemplate.size())))
          << source << "\n  got:    " << got.error().message << "\n  wanted: " << want;
    }
  }
  EXPECT_GT(num_cases, 900u);
}

}  // namespace
}  // namespace cadre
