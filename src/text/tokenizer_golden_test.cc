// The tokenizers of published models against the ids and texts that the reference library gives.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/json.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"

namespace cadre::text {
namespace {

std::string GoldenFolder() {
  const char* folder = std::getenv("CADRE_GOLDEN");
  return (folder != nullptr ? std::string(folder) : std::string(CADRE_SOURCE_DIR) + "/../shared/golden") +
         "/tokenizers";
}

Json ReadCases(const std::string& folder) {
  std::ifstream file(folder + "/cases.json");
  std::stringstream text;
  text << file.rdbuf();
  auto json = Json::Parse(text.str());
  return json ? *json : Json(Json::Array());
}

std::vector<int32_t> Ids(const Json& json) {
  std::vector<int32_t> ids;
  for (const Json& id : json.AsArray()) ids.push_back(static_cast<int32_t>(id.AsInt()));
  return ids;
}

std::string Stream(const Tokenizer& tokenizer, const std::vector<int32_t>& ids, bool skip) {
  Detokenizer detokenizer(tokenizer, skip);
  std::string text;
  for (const int32_t id : ids) text += detokenizer.Push(id);
  return text + detokenizer.Flush();
}

template <typename Check>
void ForEachFolder(const char* file, Check&& check) {
  if (!std::filesystem::is_directory(GoldenFolder()))
    GTEST_SKIP() << "no golden tokenizers at " << GoldenFolder();
  int num_checked = 0;
  for (const auto& entry : std::filesystem::directory_iterator(GoldenFolder())) {
    if (!std::filesystem::exists(entry.path() / file) ||
        !std::filesystem::exists(entry.path() / "cases.json"))
      continue;
    SCOPED_TRACE(entry.path().string());
    check(entry.path().string());
    ++num_checked;
  }
  if (num_checked == 0) GTEST_SKIP() << "no folder with " << file << " below " << GoldenFolder();
}

TEST(TokenizerGolden, JsonAgreesWithReference) {
  ForEachFolder("tokenizer.json", [](const std::string& folder) {
    auto loaded = Tokenizer::Load(folder);
    ASSERT_TRUE(loaded) << loaded.error().message;
    const Tokenizer& tokenizer = **loaded;
    const Json cases = ReadCases(folder);
    ASSERT_FALSE(cases.AsArray().empty());
    for (const Json& one : cases.AsArray()) {
      const std::string& text = one.Find("text")->AsString();
      SCOPED_TRACE(text);
      const std::vector<int32_t> ids = Ids(*one.Find("ids"));
      EXPECT_EQ(tokenizer.Encode(text, false), ids);
      EXPECT_EQ(tokenizer.Encode(text, true), Ids(*one.Find("with_special")));
      EXPECT_EQ(tokenizer.Decode(ids, false), one.Find("decoded")->AsString());
      EXPECT_EQ(tokenizer.Decode(ids, true), one.Find("decoded_skip_special")->AsString());
      EXPECT_EQ(Stream(tokenizer, ids, false), one.Find("decoded")->AsString());
      EXPECT_EQ(Stream(tokenizer, ids, true), one.Find("decoded_skip_special")->AsString());
    }
  });
}

// A folder that holds tokenizer.model alone runs on the SentencePiece library.
TEST(TokenizerGolden, SentencePieceAgreesWithReference) {
  ForEachFolder("tokenizer.model", [](const std::string& folder) {
    const auto alone = std::filesystem::path(testing::TempDir()) / "cadre_tokenizer_model_only";
    std::filesystem::create_directories(alone);
    std::filesystem::copy_file(folder + "/tokenizer.model", alone / "tokenizer.model",
                               std::filesystem::copy_options::overwrite_existing);
    auto loaded = Tokenizer::Load(alone.string());
    std::filesystem::remove_all(alone);
    ASSERT_TRUE(loaded) << loaded.error().message;
    const Json cases = ReadCases(folder);
    for (const Json& one : cases.AsArray()) {
      if (one.Find("sentencepiece_ids") == nullptr) continue;
      SCOPED_TRACE(one.Find("text")->AsString());
      const auto ids = Ids(*one.Find("sentencepiece_ids"));
      EXPECT_EQ((*loaded)->Encode(one.Find("text")->AsString(), false), ids);
      EXPECT_EQ(Stream(**loaded, ids, false), (*loaded)->Decode(ids, false));
    }
  });
}

}  // namespace
}  // namespace cadre::text
