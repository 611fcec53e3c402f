#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base/random.h"
#include "text/bpe_merges.h"
#include "text/detokenizer.h"
#include "text/utf8.h"

namespace cadre::text {
namespace {

const Tokenizer& Demo() {
  static const auto tokenizer = Tokenizer::Load(std::string(CADRE_SOURCE_DIR) + "/models/demo");
  EXPECT_TRUE(tokenizer) << tokenizer.error().message;
  return **tokenizer;
}

// SentencePiece's way, by hand: bytes, "▁", letters, and a few merges.
std::string ByteFallbackJson(const std::string& extra = "") {
  std::string vocab = R"({"<unk>":0,"<s>":1,"</s>":2)";
  for (int b = 0; b < 256; ++b) vocab += fmt::format(R"(,"<0x{:02X}>":{})", b, b + 3);
  vocab += R"(,"▁":259,"a":260,"b":261,"ab":262,"▁a":263,"▁ab":264})";
  return R"({"added_tokens":[{"id":1,"content":"<s>","special":true,"normalized":false},
    {"id":2,"content":"</s>","special":true,"normalized":false}],
    "normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},
      {"type":"Replace","pattern":{"String":" "},"content":"▁"}]},
    "decoder":{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},
      {"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]},)" +
         extra +
         R"("model":{"type":"BPE","unk_token":"<unk>","fuse_unk":true,"byte_fallback":true,"vocab":)" +
         vocab + R"(,"merges":["a b","▁ a","▁ ab"]}})";
}

std::unique_ptr<Tokenizer> ByteFallback() {
  auto tokenizer = Tokenizer::FromJson(ByteFallbackJson());
  EXPECT_TRUE(tokenizer) << tokenizer.error().message;
  return std::move(*tokenizer);
}

std::string MessageFor(const std::string& json) {
  const auto tokenizer = Tokenizer::FromJson(json);
  return tokenizer ? "no error" : tokenizer.error().message;
}

TEST(Tokenizer, UnknownComponentsAreRefusedByName) {
  const auto with = [](const char* key, const char* type) {
    return fmt::format(R"({{"{}":{{"type":"{}"}},"model":{{"type":"BPE","vocab":{{}},"merges":[]}}}})", key,
                       type);
  };
  for (const char* key : {"normalizer", "pre_tokenizer", "post_processor", "decoder"}) {
    const std::string message = MessageFor(with(key, "Frobnicate"));
    EXPECT_NE(message.find("Frobnicate"), std::string::npos) << message;
    EXPECT_NE(message.find(key), std::string::npos) << message;
  }
  for (const char* type : {"WordPiece", "WordLevel"}) {
    EXPECT_NE(MessageFor(fmt::format(R"({{"model":{{"type":"{}","vocab":{{}}}}}})", type)).find(type),
              std::string::npos);
  }
}

TEST(Tokenizer, DamagedFilesAreErrors) {
  for (
      const char* json : {
          "",
          "[]",
          "{}",
          R"({"model":{}})",
          R"({"model":{"type":"BPE","vocab":{"a":-1},"merges":[]}})",
          R"({"model":{"type":"BPE","vocab":{"a":99999999},"merges":[]}})",
          R"({"model":{"type":"BPE","vocab":{"a":0},"merges":["a b"]}})",
          R"({"model":{"type":"BPE","vocab":{"a":0},"merges":["aa"]}})",
          R"({"model":{"type":"BPE","vocab":{"a":0},"merges":[["a"]]}})",
          R"({"model":{"type":"BPE","unk_token":"?","vocab":{"a":0},"merges":[]}})",
          R"({"model":{"type":"Unigram","vocab":[["a",0.0]]}})",
          R"({"model":{"type":"Unigram","unk_id":1,"vocab":[["a",0.0]]}})",
          R"({"model":{"type":"Unigram","unk_id":0,"vocab":[["a"]]}})",
          R"({"normalizer":{"type":"Precompiled","precompiled_charsmap":"AAAA"},"model":{"type":"BPE","vocab":{},"merges":[]}})",
          R"({"pre_tokenizer":{"type":"Split","pattern":{"Regex":"("},"behavior":"Removed"},"model":{"type":"BPE","vocab":{},"merges":[]}})",
      }) {
    EXPECT_NE(MessageFor(json), "no error") << json;
  }
  std::string deep = R"({"type":"NFC"})";
  for (int i = 0; i < 30; ++i) deep = R"({"type":"Sequence","normalizers":[)" + deep + "]}";
  EXPECT_NE(MessageFor(R"({"normalizer":)" + deep + R"(,"model":{"type":"BPE","vocab":{},"merges":[]}})")
                .find("deep"),
            std::string::npos);
}

TEST(Tokenizer, TextMayNotGrowWithoutMeasure) {
  const auto repeated = [](const std::string& part, int times) {
    std::string all = part;
    for (int i = 1; i < times; ++i) all += "," + part;
    return all;
  };
  const std::string model = R"("model":{"type":"BPE","vocab":{},"merges":[]}})";
  const std::string doubles = R"({"type":"Replace","pattern":{"String":"a"},"content":"aa"})";
  EXPECT_NE(MessageFor(R"({"normalizer":{"type":"Sequence","normalizers":[)" + repeated(doubles, 40) + "]}," +
                       model)
                .find("grow"),
            std::string::npos);
  EXPECT_NE(MessageFor(R"({"normalizer":{"type":"Sequence","normalizers":[)" +
                       repeated(R"({"type":"Strip"})", 300) + "]}," + model)
                .find("grow"),
            std::string::npos);
  EXPECT_NE(MessageFor(R"({"pre_tokenizer":{"type":"Sequence","pretokenizers":[)" +
                       repeated(R"({"type":"ByteLevel"})", 40) + "]}," + model)
                .find("grow"),
            std::string::npos);
  EXPECT_NE(
      MessageFor(R"({"decoder":{"type":"Sequence","decoders":[)" + repeated(doubles, 40) + "]}," + model)
          .find("grow"),
      std::string::npos);
}

TEST(Tokenizer, EveryBytePassesThroughByteLevel) {
  std::string text;
  for (char32_t cp = 0; cp < 0x2FF; ++cp) AppendUtf8(text, cp);
  text += "\xE6\x9D\xB1\xF0\x9F\x98\x80";
  EXPECT_EQ(Demo().Decode(Demo().Encode(text, false), false), text);
  EXPECT_EQ(Demo().Decode(Demo().Encode("a\xFF\xFE", false), false), "a\xEF\xBF\xBD\xEF\xBF\xBD");
}

TEST(Tokenizer, ThreadsShareIt) {
  const std::string text = "Four score and seven years ago, 17 + 25 = 42.\n\n  caf\xC3\xA9 <|im_end|>";
  const std::vector<int32_t> expected = Demo().Encode(text, false);
  std::vector<std::thread> threads;
  std::atomic<int> num_wrong = 0;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) {
        if (Demo().Encode(text, false) != expected || Demo().Decode(expected, false) != text) ++num_wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(num_wrong, 0);
}

TEST(Tokenizer, RolesComeFromTokenizerConfig) {
  EXPECT_EQ(Demo().eos_id(), 2);
  EXPECT_EQ(Demo().pad_id(), 0);
  EXPECT_FALSE(Demo().bos_id());
  EXPECT_EQ(Demo().eos_token(), "<|im_end|>");
  EXPECT_TRUE(Demo().IsSpecial(2));
  EXPECT_FALSE(Demo().IsSpecial(5));
  EXPECT_EQ(Demo().vocab_size(), 2048);
}

TEST(Tokenizer, UnknownIdsAreNothing) {
  const std::vector<int32_t> ids = {-1, 1 << 30, 2048, INT32_MIN, 68};
  EXPECT_EQ(Demo().Decode(ids, false), Demo().Decode(std::vector<int32_t>{68}, false));
  EXPECT_FALSE(Demo().IdToToken(-1));
  EXPECT_FALSE(Demo().IdToToken(2048));
  EXPECT_EQ(Demo().TokenBytes(-5), "");
  EXPECT_EQ(Demo().TokenBytes(2048), "");
}

// The bytes of the tokens, one behind the other, are the text.
TEST(Tokenizer, TokenBytesSpellTheText) {
  const std::string text = "The caf\xC3\xA9 \xF0\x9F\x98\x80 costs 12.50\n\n\tnaïve";
  std::string bytes;
  for (const int32_t id : Demo().Encode(text, false)) bytes += Demo().TokenBytes(id);
  EXPECT_EQ(bytes, text);
  const auto fallback = ByteFallback();
  bytes.clear();
  for (const int32_t id : fallback->Encode(text, false)) bytes += fallback->TokenBytes(id);
  EXPECT_EQ(bytes, " " + text);
}

// Where there is no pre-tokenizer the text is cut at spaces; a merge across them forbids that.
TEST(Tokenizer, CuttingAtSpacesChangesNothing) {
  const auto cut = ByteFallback();
  // A merge that reaches over a space, of two tokens that never meet here, turns the cutting off.
  std::string json = ByteFallbackJson();
  json.replace(json.find(R"("▁ab":264})"), std::string_view(R"("▁ab":264})").size(),
               R"("▁ab":264,"Z":265,"Z▁":266})");
  json.replace(json.find(R"("▁ ab"])"), std::string_view(R"("▁ ab"])").size(), R"("▁ ab","Z ▁"])");
  const auto whole = Tokenizer::FromJson(json);
  ASSERT_TRUE(whole) << whole.error().message;
  uint64_t counter = 0;
  for (int round = 0; round < 500; ++round) {
    std::string text;
    for (int i = 0; i < 40; ++i)
      text += std::vector<std::string>{"a", "b", " ", "ab", "é", "▁", "<s>"}[Philox(1, 2, counter++)[0] % 7];
    EXPECT_EQ(cut->Encode(text, false), (*whole)->Encode(text, false)) << text;
  }
}

TEST(Bpe, ScanAndHeapMergeAlike) {
  BpeMerges merges;
  merges.Reserve(200);
  uint64_t counter = 0;
  const auto draw = [&](uint32_t below) { return static_cast<int32_t>(Philox(9, 9, counter++)[0] % below); };
  for (int i = 0; i < 200; ++i) merges.Add(draw(12), draw(12), draw(14));
  for (int round = 0; round < 2000; ++round) {
    Scratch scan;
    for (int n = draw(80); n > 0; --n) scan.ids.push_back(draw(4));
    Scratch heap;
    heap.ids = scan.ids;
    merges.MergeByScan(scan);
    merges.MergeByHeap(heap);
    ASSERT_EQ(scan.ids, heap.ids);
  }
}

TEST(Detokenizer, NeverSplitsACodePoint) {
  const std::string text = "\xF0\x9F\x98\x80 caf\xC3\xA9 \xE6\x9D\xB1\xE4\xBA\xAC";
  const auto fallback = ByteFallback();
  for (const Tokenizer* tokenizer : {&Demo(), static_cast<const Tokenizer*>(fallback.get())}) {
    Detokenizer detokenizer(*tokenizer, false);
    std::string out;
    for (const int32_t id : tokenizer->Encode(text, false)) {
      const std::string piece = detokenizer.Push(id);
      EXPECT_EQ(ValidUtf8Prefix(piece), piece.size());
      EXPECT_EQ(piece.find(kReplacementText), std::string::npos);
      out += piece;
    }
    EXPECT_EQ(out + detokenizer.Flush(), text);
  }
}

// Any ids at all: pushes and flush give what Decode gives.
TEST(Detokenizer, StreamEqualsDecode) {
  const auto fallback = ByteFallback();
  uint64_t counter = 0;
  for (const Tokenizer* tokenizer : {&Demo(), static_cast<const Tokenizer*>(fallback.get())}) {
    for (int round = 0; round < 3000; ++round) {
      std::vector<int32_t> ids;
      for (uint32_t n = Philox(4, 1, counter++)[0] % 20; n > 0; --n) {
        ids.push_back(static_cast<int32_t>(Philox(4, 2, counter++)[0] %
                                           static_cast<uint32_t>(tokenizer->vocab_size() + 2)));
      }
      const bool skip = round % 2 == 0;
      Detokenizer detokenizer(*tokenizer, skip);
      std::string out;
      for (const int32_t id : ids) out += detokenizer.Push(id);
      ASSERT_EQ(out + detokenizer.Flush(), tokenizer->Decode(ids, skip)) << testing::PrintToString(ids);
    }
  }
}

TEST(Detokenizer, BehindAPromptTheFirstTokenKeepsItsSpace) {
  const auto tokenizer = ByteFallback();
  const std::vector<int32_t> prompt = tokenizer->Encode("ab", false);
  EXPECT_EQ(Detokenizer(*tokenizer, false).Push(264), "ab");
  EXPECT_EQ(Detokenizer(*tokenizer, prompt, false).Push(264), " ab");
}

// A prompt may end in the middle of a code point, or in a run of bytes that is still held.
TEST(Detokenizer, BehindAPromptNoTextOfThePromptComesOut) {
  const auto tokenizer = ByteFallback();
  const auto byte = [](int b) { return b + 3; };
  const std::vector<int32_t> half = {260, byte(0xC3)};
  Detokenizer completes(*tokenizer, half, false);
  std::string out = completes.Push(byte(0xA9));
  out += completes.Push(260);
  EXPECT_EQ(out + completes.Flush(),
            "\xC3\xA9"
            "a");
  Detokenizer leaves(*tokenizer, half, false);
  out = leaves.Push(260);
  EXPECT_EQ(out + leaves.Flush(), "a");
  const std::vector<int32_t> run = {260, byte('x'), byte('y')};
  Detokenizer goes_on(*tokenizer, run, false);
  out = goes_on.Push(byte('z'));
  out += goes_on.Push(260);
  EXPECT_EQ(out + goes_on.Flush(), "za");
}

TEST(Detokenizer, LongRunsOfBytesAreLetGo) {
  const auto tokenizer = ByteFallback();
  Detokenizer detokenizer(*tokenizer, false);
  std::string out;
  for (int i = 0; i < 200; ++i) out += detokenizer.Push('x' + 3);
  EXPECT_GE(out.size(), 200 - Detokenizer::kMaxHeldBytes);
  EXPECT_EQ(out + detokenizer.Flush(), std::string(200, 'x'));
}

class TokenizerFolder : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(testing::TempDir()) / fmt::format("cadre_tokenizer_{}", EntropySeed());
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  void Write(const std::string& name, const std::string& text) { std::ofstream(folder_ / name) << text; }
  Result<std::unique_ptr<Tokenizer>> Load() { return Tokenizer::Load(folder_.string()); }

  std::filesystem::path folder_;
};

TEST_F(TokenizerFolder, AddBosTokenCountsWhereTokenizerJsonSaysNothing) {
  Write("tokenizer.json", ByteFallbackJson());
  Write("tokenizer_config.json",
        R"({"bos_token":{"content":"<s>"},"eos_token":"</s>","add_bos_token":true,"add_eos_token":true})");
  auto tokenizer = Load();
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ((*tokenizer)->Encode("ab", true), (std::vector<int32_t>{1, 264, 2}));
  EXPECT_EQ((*tokenizer)->Encode("ab", false), (std::vector<int32_t>{264}));
  EXPECT_EQ((*tokenizer)->bos_id(), 1);
  Write(
      "tokenizer.json",
      ByteFallbackJson(
          R"("post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"x","type_id":0}},
      {"Sequence":{"id":"A","type_id":0}}],"pair":[],"special_tokens":{"x":{"id":"x","ids":[5],"tokens":["x"]}}},)"));
  tokenizer = Load();
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ((*tokenizer)->Encode("ab", true), (std::vector<int32_t>{5, 264}));
}

TEST_F(TokenizerFolder, ConfigAddsTokens) {
  Write("tokenizer.json", ByteFallbackJson());
  Write("tokenizer_config.json",
        R"({"added_tokens_decoder":{"265":{"content":"<tool>","special":false,"normalized":false},
    "1":{"content":"<s>","special":true}}})");
  const auto tokenizer = Load();
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ((*tokenizer)->Encode("<tool>ab", false), (std::vector<int32_t>{265, 264}));
  EXPECT_EQ((*tokenizer)->vocab_size(), 266);
}

TEST_F(TokenizerFolder, ErrorsNameTheFile) {
  EXPECT_EQ(Load().error().code, Code::kNotFound);
  Write("tokenizer.json", "{");
  EXPECT_NE(Load().error().message.find("tokenizer.json"), std::string::npos);
  Write("tokenizer.json", ByteFallbackJson());
  Write("tokenizer_config.json", "[]");
  EXPECT_NE(Load().error().message.find("tokenizer_config.json"), std::string::npos);
}

TEST_F(TokenizerFolder, DamagedSentencePieceModelIsAnError) {
  Write("tokenizer.model", "this is no protocol buffer");
  const auto tokenizer = Load();
  ASSERT_FALSE(tokenizer);
  EXPECT_NE(tokenizer.error().message.find("tokenizer.model"), std::string::npos);
}

}  // namespace
}  // namespace cadre::text
