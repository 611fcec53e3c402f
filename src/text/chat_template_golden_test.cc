// Published chat templates against what Jinja2 rendered for them.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "text/chat_template.h"

namespace cadre {
namespace {

std::filesystem::path Folder() {
  const char* golden = std::getenv("CADRE_GOLDEN");
  const std::filesystem::path root = golden != nullptr
                                         ? std::filesystem::path(golden)
                                         : std::filesystem::path(CADRE_SOURCE_DIR) / "../shared/golden";
  return root / "chat_templates";
}

std::string ReadFile(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

Json ContextOf(const Json& c) {
  Json context((Json::Object()));
  for (const char* key : {"messages", "tools", "documents", "bos_token", "eos_token"}) {
    if (const Json* value = c.Find(key)) context.Set(key, *value);
  }
  for (const auto& [key, value] : c.Find("kwargs")->AsObject()) context.Set(key, value);
  return context;
}

// What the library says for a case, or the error, in the words of the golden files.
void Check(const Json& c, const Result<std::string>& got) {
  if (const Json* text = c.Find("text")) {
    ASSERT_TRUE(got.has_value()) << got.error().message;
    ASSERT_EQ(*got, text->AsString());
    return;
  }
  const std::string& error = c.Find("error")->AsString();
  ASSERT_FALSE(got.has_value()) << "wanted an error: " << error << "\nbut got: " << *got;
  ASSERT_EQ(got.error().code, Code::kInvalidArgument);
  constexpr std::string_view kTemplate = "template: ";
  if (!error.starts_with(kTemplate)) return;
  const std::string message = error.substr(kTemplate.size());
  if (got.error().param == "messages") {
    ASSERT_EQ(got.error().message, message);  // raise_exception: word for word
  } else {
    // Jinja's own: after the place that we add.
    ASSERT_TRUE(got.error().message.starts_with("chat template, line ")) << got.error().message;
    ASSERT_TRUE(got.error().message.ends_with(": " + message))
        << got.error().message << "\nwanted: " << message;
  }
}

TEST(ChatTemplateGolden, AllCases) {
  const std::filesystem::path folder = Folder();
  if (!std::filesystem::is_directory(folder)) GTEST_SKIP() << "no golden data: chat_templates";
  RenderLimits limits;
  limits.now.emplace();
  limits.now->tm_year = 2026 - 1900;
  limits.now->tm_mon = 2;
  limits.now->tm_mday = 14;
  limits.now->tm_wday = 6;  // a Saturday
  limits.now->tm_yday = 31 + 28 + 13;
  limits.now->tm_hour = 15;
  limits.now->tm_min = 9;
  limits.now->tm_sec = 26;
  int num_cases = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".jinja") continue;
    std::filesystem::path cases_path = entry.path();
    cases_path.replace_extension(".json");
    if (!std::filesystem::exists(cases_path)) continue;
    auto compiled = ChatTemplate::Compile(ReadFile(entry.path()));
    auto cases = Json::Parse(ReadFile(cases_path), 200);
    ASSERT_TRUE(cases.has_value()) << cases_path << ": " << cases.error().message;
    int number = 0;
    for (const Json& c : cases->AsArray()) {
      SCOPED_TRACE(entry.path().filename().string() + ", case " + std::to_string(number++));
      if (compiled.has_value()) {
        Check(c, compiled->Render(ContextOf(c), limits));
      } else {
        Check(c, std::unexpected(compiled.error()));
      }
      if (HasFatalFailure()) break;
      ++num_cases;
    }
  }
  EXPECT_GT(num_cases, 0);
  std::printf("%d cases\n", num_cases);
}

}  // namespace
}  // namespace cadre
