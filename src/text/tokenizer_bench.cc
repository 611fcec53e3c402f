// Speed of the tokenizers: bytes of text per second on one core, and the time to load a tokenizer.json.
//   CADRE_GOLDEN=... text_bench          (folder with tokenizers/; default ../shared/golden; models/demo
//   always)
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <memory>

#include "base/random.h"
#include "text/tokenizer.h"

namespace cadre::text {
namespace {

// Words with about the frequencies of English: the rank's reciprocal. Long enough that the word cache must
// work for it.
std::string EnglishText(size_t bytes) {
  constexpr const char* kStems[] = {"the",    "of",     "and",      "to",    "in",     "that",    "govern",
                                    "nation", "people", "state",    "with",  "which",  "shall",   "experi",
                                    "consid", "measur", "public",   "great", "countr", "establi", "constitu",
                                    "law",    "power",  "interest", "war",   "peace",  "part",    "time",
                                    "author", "servic", "commerc",  "hop"};
  constexpr const char* kEnds[] = {"",   "s",     "ed",   "ing",  "ment", "ly",
                                   "er", "ation", "able", "ness", "ful",  "ive"};
  std::string text;
  uint64_t counter = 0;
  while (text.size() < bytes) {
    const double u = UniformAt(7, 1, counter++);
    const auto stem = static_cast<size_t>(32.0 * u * u);
    const double v = UniformAt(7, 2, counter);
    const auto end = static_cast<size_t>(12.0 * v * v * v);
    text += kStems[stem];
    text += kEnds[end];
    if (stem > 16 && counter % 5 == 0) text += kStems[counter % 32];  // names and rare words
    text += counter % 17 == 0 ? ".\n" : counter % 9 == 0 ? ", " : " ";
    if (counter % 61 == 0) text += "1845 ";
  }
  return text;
}

std::string ChineseText(size_t bytes) {
  std::string text;
  for (uint64_t i = 0; text.size() < bytes; ++i) {
    const double u = UniformAt(7, 3, i);
    const auto cp = static_cast<uint32_t>(0x4E00 + 2500.0 * u * u);
    text += static_cast<char>(0xE0 | cp >> 12);
    text += static_cast<char>(0x80 | (cp >> 6 & 63));
    text += static_cast<char>(0x80 | (cp & 63));
    if (i % 14 == 13) text += "\xE3\x80\x82";
  }
  return text;
}

std::string FolderOf(const std::string& name) {
  if (name == "demo") return std::string(CADRE_SOURCE_DIR) + "/models/demo";
  const char* golden = std::getenv("CADRE_GOLDEN");
  return (golden != nullptr ? std::string(golden) : std::string(CADRE_SOURCE_DIR) + "/../shared/golden") +
         "/tokenizers/" + name;
}

const Tokenizer* Get(const std::string& name) {
  static std::map<std::string, std::unique_ptr<Tokenizer>> loaded;
  if (!loaded.contains(name)) {
    auto tokenizer = Tokenizer::Load(FolderOf(name));
    loaded[name] = tokenizer ? std::move(*tokenizer) : nullptr;
  }
  return loaded[name].get();
}

void Encode(benchmark::State& state, const std::string& name, const std::string& text) {
  const Tokenizer* tokenizer = Get(name);
  if (tokenizer == nullptr) return state.SkipWithError("tokenizer not found");
  size_t num_ids = 0;
  for (auto _ : state) num_ids = tokenizer->Encode(text, false).size();
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * text.size()));
  state.counters["ids"] = static_cast<double>(num_ids);
}

void Decode(benchmark::State& state, const std::string& name) {
  const Tokenizer* tokenizer = Get(name);
  if (tokenizer == nullptr) return state.SkipWithError("tokenizer not found");
  const auto ids = tokenizer->Encode(EnglishText(1 << 18), false);
  for (auto _ : state) benchmark::DoNotOptimize(tokenizer->Decode(ids, false));
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * ids.size()));
}

void Load(benchmark::State& state, const std::string& name) {
  if (!std::filesystem::exists(FolderOf(name))) return state.SkipWithError("tokenizer not found");
  for (auto _ : state) benchmark::DoNotOptimize(Tokenizer::Load(FolderOf(name)));
}

const bool kRegistered = [] {
  for (const std::string name : {"qwen3", "deepseek", "mistral", "demo"}) {
    const auto add = [&](const char* kind, auto function, auto... args) {
      benchmark::RegisterBenchmark((std::string(kind) + "/" + name).c_str(), function, name, args...)
          ->Unit(benchmark::kMillisecond);
    };
    add("EncodeEnglish", Encode, EnglishText(1 << 20));
    add("EncodeChinese", Encode, ChineseText(1 << 20));
    add("EncodeOneLetter", Encode, std::string(1 << 20, 'a'));
    add("EncodeSpaces", Encode, std::string(1 << 20, ' '));
    add("Decode", Decode);
    add("Load", Load);
  }
  return true;
}();

}  // namespace
}  // namespace cadre::text
