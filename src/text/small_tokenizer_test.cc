// Many combinations of components on tiny tokenizers, against the answers of the reference library
// (testdata/make_cases.py made them; another file of that shape can be named in CADRE_TOKENIZER_CASES).
#include <gtest/gtest.h>

#include <cstdlib>

#include "base/json.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"

namespace cadre::text {
namespace {

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

Json Whole(const Json& tokenizers, const Json& configuration) {
  Json whole = *tokenizers.Find(configuration.Find("model")->AsString());
  for (const auto& [key, value] : configuration.Find("change")->AsObject()) whole.Set(key, value);
  for (const auto& [key, value] : configuration.Find("options")->AsObject())
    whole.Find("model")->Set(key, value);
  return whole;
}

TEST(SmallTokenizers, AgreeWithReference) {
  const char* other = std::getenv("CADRE_TOKENIZER_CASES");
  const auto text = ReadWholeFile(other != nullptr ? std::string(other)
                                                   : std::string(CADRE_SOURCE_DIR) +
                                                         "/src/text/testdata/small_tokenizers.json");
  ASSERT_TRUE(text && *text);
  const auto json = Json::Parse(**text);
  ASSERT_TRUE(json) << json.error().message;
  size_t num_cases = 0;
  for (const Json& configuration : json->Find("configurations")->AsArray()) {
    SCOPED_TRACE(configuration.Find("model")->AsString() + " " + configuration.Find("options")->Dump() + " " +
                 configuration.Find("change")->Dump());
    const auto loaded = Tokenizer::FromJson(Whole(*json->Find("tokenizers"), configuration).Dump());
    ASSERT_TRUE(loaded) << loaded.error().message;
    for (const Json& one : configuration.Find("cases")->AsArray()) {
      SCOPED_TRACE(one.Dump());
      const std::string& input = one.Find("text")->AsString();
      EXPECT_EQ((*loaded)->Encode(input, false), Ids(*one.Find("ids")));
      EXPECT_EQ((*loaded)->Encode(input, true), Ids(*one.Find("special")));
      const auto ids = Ids(*one.Find("decode"));
      EXPECT_EQ((*loaded)->Decode(ids, false), one.Find("decoded")->AsString());
      EXPECT_EQ((*loaded)->Decode(ids, true), one.Find("skipped")->AsString());
      EXPECT_EQ(Stream(**loaded, ids, false), one.Find("decoded")->AsString());
      EXPECT_EQ(Stream(**loaded, ids, true), one.Find("skipped")->AsString());
      ++num_cases;
    }
  }
  EXPECT_GT(num_cases, 300u);
}

}  // namespace
}  // namespace cadre::text
