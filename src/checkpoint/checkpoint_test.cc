#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "checkpoint/file.h"
#include "checkpoint/hf_config.h"
#include "checkpoint/hub_cache.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/shard_index.h"
#include "checkpoint/source.h"

namespace cadre::checkpoint {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class Folder : public testing::Test {
 protected:
  Folder() {
    std::string pattern = (fs::temp_directory_path() / "cadre_XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~Folder() override { fs::remove_all(path_); }
  void Write(const std::string& name, const std::string& bytes) {
    fs::create_directories(fs::path(path_ + "/" + name).parent_path());
    std::ofstream(path_ + "/" + name, std::ios::binary) << bytes;
  }
  Error OpenError() {
    auto source = OpenCheckpoint(path_);
    EXPECT_FALSE(source.has_value());
    return source ? Error{} : source.error();
  }
  std::string path_;
};

// A file with the given JSON header and so many bytes of data.
std::string File(const std::string& header, size_t data_bytes) {
  std::string bytes(8, '\0');
  for (size_t i = 0; i < 8; ++i) bytes[i] = static_cast<char>(header.size() >> (8 * i));
  bytes += header;
  for (size_t i = 0; i < data_bytes; ++i) bytes += static_cast<char>(i);
  return bytes;
}

std::string Entry(const std::string& name, const std::string& dtype, const std::string& shape, int begin,
                  int end) {
  return Format(R"("{}":{{"dtype":"{}","shape":{},"data_offsets":[{},{}]}})", name, dtype, shape, begin, end);
}

using Safetensors = Folder;

TEST_F(Safetensors, ReadsTensorsInTheOrderOfTheirBytes) {
  Write("model.safetensors",
        File("{\"__metadata__\":{\"format\":\"pt\"}," + Entry("b", "F32", "[2]", 6, 14) + "," +
                 Entry("a", "BF16", "[1,3]", 0, 6) + "," + Entry("empty", "F32", "[0,4]", 6, 6) + "," +
                 Entry("scalar", "U8", "[]", 14, 15) + "}  ",
             15));
  auto source = OpenCheckpoint(path_);
  ASSERT_TRUE(source.has_value()) << source.error().message;
  ASSERT_EQ((*source)->tensors().size(), 4u);
  EXPECT_EQ((*source)->tensors()[0].name, "a");
  const TensorInfo* b = (*source)->Find("b");
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(b->dtype, DType::kF32);
  EXPECT_EQ(b->shape, std::vector<int64_t>{2});
  unsigned char bytes[3];
  ASSERT_TRUE((*source)->Read(*b, 2, 3, bytes).has_value());
  EXPECT_EQ(bytes[0], 8);
  EXPECT_EQ(bytes[2], 10);
  EXPECT_EQ((*source)->Find("c"), nullptr);
  EXPECT_EQ((*source)->FileOf(*b), path_ + "/model.safetensors");
}

TEST_F(Safetensors, MakeHeaderIsReadBack) {
  const std::vector<TensorInfo> tensors = {{.name = "x", .dtype = DType::kF16, .shape = {3, 5}},
                                           {.name = "\"odd\" näme", .dtype = DType::kI64, .shape = {}}};
  const std::string bytes = MakeSafetensorsHeader(tensors);
  EXPECT_EQ(bytes.size() % 8, 0u);
  const auto found = ParseSafetensorsHeader(bytes.substr(8), static_cast<int64_t>(bytes.size()) + 38, "f");
  ASSERT_TRUE(found.has_value()) << found.error().message;
  ASSERT_EQ(found->size(), 2u);
  EXPECT_EQ((*found)[1].name, tensors[1].name);
  EXPECT_EQ((*found)[1].offset, static_cast<int64_t>(bytes.size()) + 30);
}

TEST_F(Safetensors, DamagedHeadersSayWhatIsWrong) {
  const struct {
    std::string bytes;
    const char* message;
  } cases[] = {
      {"", "wanted at least 8 bytes, found 0"},
      {"abc", "wanted at least 8 bytes, found 3"},
      {std::string(8, '\xff'), "no safetensors file"},
      {std::string("\x10\0\0\0\0\0\0\0{}", 10), "truncated: wanted a header of 16 bytes, found 2"},
      {File("[]", 0), "wanted a JSON object, found array"},
      {File("{", 0), "damaged header"},
      {File("{\"a\":{\"b\":{\"c\":{\"d\":{\"e\":{\"f\":{\"g\":{\"h\":{\"i\":1}}}}}}}}}", 0),
       "damaged header"},
      {File("{\"a\":3}", 0), "tensor 'a'"},
      {File("{\"a\":{\"dtype\":\"F32\"}}", 0), "tensor 'a' must have dtype"},
      {File("{" + Entry("a", "F32", "[1]", 0, 4) + "}", 3),
       "truncated: tensor 'a' ends at byte 4 of the data, the file has 3"},
      {File("{" + Entry("a", "F32", "[1]", 0, 4) + "}", 5),
       "the tensors end at byte 4 of the data, the file has 5"},
      {File("{" + Entry("a", "F32", "[2]", 0, 4) + "}", 4), "needs 8 bytes, its data_offsets [0,4] give 4"},
      {File("{" + Entry("a", "F32", "[1]", 4, 0) + "}", 4), "impossible data_offsets"},
      {File("{" + Entry("a", "F32", "[1]", -4, 0) + "}", 4), "impossible data_offsets"},
      {File("{" + Entry("a", "F32", "[-1]", 0, 4) + "}", 4), "impossible shape"},
      {File("{" + Entry("a", "F32", "[1.5]", 0, 4) + "}", 4), "impossible shape"},
      {File("{" + Entry("a", "F32", "[4611686018427387904,4]", 0, 0) + "}", 0), "impossible shape"},
      {File("{" + Entry("a", "F32", "[1,1,1,1,1,1,1,1,1]", 0, 4) + "}", 4), "9 dimensions"},
      {File("{" + Entry("a", "Q4_0", "[1]", 0, 4) + "}", 4), "dtype 'Q4_0'; known are F32, BF16"},
      {File("{" + Entry("a", "F32", "[2]", 0, 8) + "," + Entry("b", "F32", "[2]", 4, 12) + "}", 12),
       "tensors overlap"},
      {File("{" + Entry("a", "F32", "[1]", 0, 4) + "," + Entry("b", "F32", "[1]", 8, 12) + "}", 12),
       "there is a gap"},
      {File("{}", 1), "the tensors end at byte 0 of the data, the file has 1"},
  };
  for (const auto& test : cases) {
    Write("model.safetensors", test.bytes);
    const Error error = OpenError();
    EXPECT_THAT(error.message, HasSubstr(test.message));
    EXPECT_THAT(error.message, HasSubstr(path_ + "/model.safetensors"));
  }
}

TEST_F(Safetensors, HeaderWithTooManyValuesIsRefused) {
  std::string header = "{\"a\":[0";
  for (int i = 0; i < 8'000'001; ++i) header += ",0";
  const auto found = ParseSafetensorsHeader(header + "]}", 1 << 30, "f");
  ASSERT_FALSE(found.has_value());
  EXPECT_THAT(found.error().message, HasSubstr("more than 8000000 values"));
}

TEST_F(Safetensors, ShrinkingFileIsAnErrorNotASignal) {
  Write("model.safetensors", File("{" + Entry("a", "U8", "[100]", 0, 100) + "}", 100));
  auto source = OpenCheckpoint(path_);
  ASSERT_TRUE(source.has_value());
  ASSERT_EQ(truncate((path_ + "/model.safetensors").c_str(), 90), 0);
  char bytes[100];
  const Status read = (*source)->Read((*source)->tensors()[0], 0, 100, bytes);
  ASSERT_FALSE(read.has_value());
  EXPECT_EQ(read.error().code, Code::kDataLoss);
  EXPECT_THAT(read.error().message, HasSubstr("ends at byte 90"));
  EXPECT_EQ((*source)->View((*source)->tensors()[0], 0, 100), nullptr);
  const Status views = (*source)->CheckViews();
  ASSERT_FALSE(views.has_value());
  EXPECT_EQ(views.error().code, Code::kDataLoss);
  EXPECT_THAT(views.error().message, HasSubstr("model.safetensors changed while it was read"));
}

TEST_F(Safetensors, AViewIsWhatAReadBrings) {
  Write("model.safetensors",
        File("{" + Entry("a", "U8", "[100]", 0, 100) + "," + Entry("b", "U8", "[9]", 100, 109) + "}", 109));
  const auto source = *OpenCheckpoint(path_);
  const TensorInfo& b = *source->Find("b");
  char bytes[5];
  ASSERT_TRUE(source->Read(b, 3, 5, bytes));
  const std::byte* view = source->View(b, 3, 5);
  if (view == nullptr) GTEST_SKIP() << "this file system does not say what is in memory";
  EXPECT_EQ(memcmp(view, bytes, 5), 0);
  EXPECT_TRUE(source->CheckViews());
}

using Sources = Folder;

TEST_F(Sources, FolderWithoutWeights) {
  EXPECT_THAT(OpenError().message, HasSubstr("no weights in"));
  fs::create_directory(path_ + "/model.safetensors");
  EXPECT_THAT(OpenError().message, HasSubstr("no weights in"));
  fs::remove(path_ + "/model.safetensors");
  ASSERT_EQ(mkfifo((path_ + "/model.safetensors").c_str(), 0600), 0);
  EXPECT_THAT(OpenError().message, HasSubstr("no weights in"));
  EXPECT_FALSE(ReadFile::Open(path_ + "/model.safetensors").has_value());  // and does not wait for a writer
}

TEST_F(Sources, ShardsByTheIndex) {
  Write("one.safetensors",
        File("{" + Entry("a", "U8", "[2]", 0, 2) + "," + Entry("twice", "U8", "[1]", 2, 3) + "}", 3));
  Write("two.safetensors",
        File("{" + Entry("b", "U8", "[4]", 0, 4) + "," + Entry("twice", "U8", "[1]", 4, 5) + "}", 5));
  const std::string index =
      R"({"metadata":{},"weight_map":{"a":"one.safetensors","b":"two.safetensors","twice":"two.safetensors"}})";
  Write("model.safetensors.index.json", index);
  auto source = OpenCheckpoint(path_);
  ASSERT_TRUE(source.has_value()) << source.error().message;
  EXPECT_EQ((*source)->tensors().size(), 3u);
  unsigned char byte = 0;
  ASSERT_TRUE((*source)->Read(*(*source)->Find("twice"), 0, 1, &byte).has_value());
  EXPECT_EQ(byte, 4);

  fs::remove(path_ + "/two.safetensors");
  const Error missing = OpenError();
  EXPECT_EQ(missing.code, Code::kNotFound);
  EXPECT_THAT(missing.message, HasSubstr("lists 2 shards, missing: two.safetensors"));
  Write("two.safetensors", File("{" + Entry("c", "U8", "[4]", 0, 4) + "}", 4));
  EXPECT_THAT(OpenError().message, HasSubstr("is in two.safetensors, but it is not there"));
}

TEST_F(Sources, DamagedIndex) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "index"},
      {"{}", "'weight_map'"},
      {R"({"weight_map":{}})", "empty"},
      {R"({"weight_map":{"a":1}})", "must be text"},
      {R"({"weight_map":{"a":"../../etc/passwd"}})", "wanted the name of a file in the same folder"},
      {R"({"weight_map":{"a":"/etc/passwd"}})", "wanted the name of a file in the same folder"},
      {R"({"weight_map":{"a":".."}})", "wanted the name of a file in the same folder"},
      {R"({"weight_map":{"a":""}})", "wanted the name of a file in the same folder"},
  };
  for (const auto& [text, message] : cases) {
    Write("model.safetensors.index.json", text);
    EXPECT_THAT(OpenError().message, HasSubstr(message));
  }
}

using HubCache = Folder;

TEST_F(HubCache, FolderOfTheCacheByPrecedence) {
  HubEnvironment e{.home = "/h"};
  EXPECT_EQ(HubCacheFolder({}), "");
  EXPECT_EQ(HubCacheFolder(e), "/h/.cache/huggingface/hub");
  e.xdg_cache_home = "/x";
  EXPECT_EQ(HubCacheFolder(e), "/x/huggingface/hub");
  e.hf_home = "~/hf";
  EXPECT_EQ(HubCacheFolder(e), "/h/hf/hub");
  e.huggingface_hub_cache = "/old";
  EXPECT_EQ(HubCacheFolder(e), "/old");
  e.hf_hub_cache = "/new";
  EXPECT_EQ(HubCacheFolder(e), "/new");
}

TEST_F(HubCache, FindsSnapshotsByRevision) {
  const HubEnvironment e{.hf_hub_cache = path_};
  Write("models--org--name/refs/main", "abc123\n");
  Write("models--org--name/refs/refs/pr/1", "def456");
  Write("models--org--name/snapshots/abc123/config.json", "{}");
  Write("models--org--name/snapshots/def456/config.json", "{}");
  Write("models--gpt2/refs/main", "aaa");
  Write("models--gpt2/snapshots/aaa/config.json", "{}");
  const std::string snapshots = path_ + "/models--org--name/snapshots/";
  EXPECT_EQ(LocateModel("org/name", "", e)->folder, snapshots + "abc123");
  EXPECT_EQ(LocateModel("org/name", "main", e)->revision, "abc123");
  EXPECT_EQ(LocateModel("org/name", "refs/pr/1", e)->folder, snapshots + "def456");
  EXPECT_EQ(LocateModel("org/name", "def456", e)->folder, snapshots + "def456");
  EXPECT_EQ(LocateModel("gpt2", "", e)->revision, "aaa");
  EXPECT_EQ(LocateModel("gpt2", "", e)->name, "gpt2");
  // A folder wins, whatever it is called.
  EXPECT_EQ(LocateModel(snapshots + "abc123", "", e)->folder, snapshots + "abc123");
}

TEST_F(HubCache, SaysWhereItLookedAndHowToGetIt) {
  const HubEnvironment e{.hf_hub_cache = path_};
  const auto absent = LocateModel("org/name", "", e);
  ASSERT_FALSE(absent.has_value());
  EXPECT_EQ(absent.error().code, Code::kNotFound);
  EXPECT_THAT(absent.error().message, HasSubstr(path_ + "/models--org--name"));
  EXPECT_THAT(absent.error().message, HasSubstr("huggingface-cli download org/name"));
  EXPECT_THAT(absent.error().message, HasSubstr("hf download org/name"));
  Write("models--org--name/refs/main", "abc123");
  const auto no_snapshot = LocateModel("org/name", "v2", e);
  ASSERT_FALSE(no_snapshot.has_value());
  EXPECT_THAT(no_snapshot.error().message, HasSubstr("snapshots/v2"));
  EXPECT_THAT(no_snapshot.error().message, HasSubstr("--revision v2"));
  EXPECT_THAT(LocateModel("org/name", "", {}).error().message, HasSubstr("none of HF_HUB_CACHE"));
}

TEST_F(HubCache, HostileNamesStayInside) {
  const HubEnvironment e{.hf_hub_cache = path_};
  Write("models--org--name/refs/main", "../../../etc");
  EXPECT_EQ(LocateModel("org/name", "", e).error().code, Code::kDataLoss);
  for (const char* revision : {"../../x", "/etc", "a//b", "a/../b", ".", "-x", "a b"}) {
    EXPECT_EQ(LocateModel("org/name", revision, e).error().code, Code::kInvalidArgument) << revision;
  }
  for (const char* name : {"", "../x", "a/b/c", "/nowhere/model", "org/", "org/na me", "--help"}) {
    EXPECT_EQ(LocateModel(name, "", e).error().code, Code::kNotFound) << name;
  }
  Write("file.gguf", "x");
  EXPECT_EQ(LocateModel(path_ + "/file.gguf", "", e).error().code, Code::kInvalidArgument);
}

using HfConfig = Folder;

TEST_F(HfConfig, ReadsBothFiles) {
  EXPECT_THAT(ReadModelFiles(path_).error().message, HasSubstr("no config.json in " + path_));
  Write("config.json", R"({"a": 1})");
  auto files = ReadModelFiles(path_);
  ASSERT_TRUE(files.has_value());
  EXPECT_TRUE(files->generation_config.is_null());
  Write("generation_config.json", "[1]");
  EXPECT_THAT(ReadModelFiles(path_).error().message,
              HasSubstr("generation_config.json: wanted a JSON object, found array"));
  Write("config.json", "{\"a\": ");
  EXPECT_THAT(ReadModelFiles(path_).error().message, HasSubstr("config.json"));
}

TEST_F(HfConfig, ReaderKeepsTheFirstError) {
  const auto json =
      Json::Parse(R"({"i": 3, "whole": 16.0, "f": 1.5, "s": "x", "n": null, "list": [1, 2], "b": true})");
  ConfigReader reader(*json, "config.json");
  EXPECT_EQ(reader.Int("i", 0, 9), 3);
  EXPECT_EQ(reader.Int("whole", 0, 99), 16);
  EXPECT_EQ(reader.IntOr("n", 7, 0, 9), 7);
  EXPECT_EQ(reader.Number("f", 0, 9), 1.5);
  EXPECT_EQ(reader.Number("i", 0, 9), 3.0);
  EXPECT_EQ(reader.StringOr("s", ""), "x");
  EXPECT_TRUE(reader.BoolOr("b", false));
  EXPECT_EQ(reader.Ints("list", 0, 9), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(reader.Ints("i", 0, 9), (std::vector<int64_t>{3}));
  EXPECT_EQ(reader.AnyOf({"n", "i"}), "i");
  EXPECT_EQ(reader.AnyOf({"n", "none"}), "n");
  EXPECT_FALSE(reader.IsAbsent("n"));
  EXPECT_FALSE(reader.failed());
  EXPECT_EQ(reader.Int("f", 1, 9), 1);
  EXPECT_EQ(reader.Int("missing", 2, 9), 2);
  ASSERT_TRUE(reader.failed());
  EXPECT_EQ(reader.status().error().message, "config.json: f must be an integer, found 1.5");
  EXPECT_EQ(reader.status().error().param, "f");
}

}  // namespace
}  // namespace cadre::checkpoint
