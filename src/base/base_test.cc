#include <gtest/gtest.h>

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "base/random.h"

namespace cadre {
namespace {

TEST(Json, KeepsOrderAndExactIntegers) {
  const auto json = Json::Parse(R"({"z":1,"a":[true,null,-9223372036854775808,1.5,"x\ny"],"z":2})");
  ASSERT_TRUE(json.has_value()) << json.error().message;
  EXPECT_EQ(json->Dump(), R"({"z":2,"a":[true,null,-9223372036854775808,1.5,"x\ny"]})");
}

TEST(Json, ManyRepeatedKeysKeepTheLastValue) {
  std::string text = "{";
  for (int i = 0; i < 40; ++i) text += Format("\"k{}\":{},", i % 20, i);
  text.back() = '}';
  const auto json = Json::Parse(text);
  ASSERT_TRUE(json.has_value());
  ASSERT_EQ(json->AsObject().size(), 20u);
  EXPECT_EQ(json->Find("k3")->AsInt(), 23);
}

TEST(Json, RefusesWhatIsNotOneDocument) {
  for (const char* bad : {"", "{", "[1,]", "1 2", "{\"a\":}", "\"\xff\"", "nul", "{'a':1}"}) {
    EXPECT_FALSE(Json::Parse(bad).has_value()) << bad;
  }
  EXPECT_FALSE(Json::Parse(std::string(100000, '['), 64).has_value());
}

TEST(Json, DoublesReadBackEqual) {
  for (double d : {0.1, 1e300, -2.5e-7, 3.0, 1.0 / 3.0}) {
    const auto json = Json::Parse(Json(d).Dump());
    ASSERT_TRUE(json.has_value());
    EXPECT_TRUE(json->is_double());
    EXPECT_EQ(json->AsDouble(), d);
  }
  EXPECT_EQ(Json(0.0 / 0.0).Dump(), "null");
}

TEST(Random, PhiloxMatchesThePublishedVectors) {
  // The "kat_vectors" of the Random123 library: philox4x32 10 rounds.
  EXPECT_EQ(Philox(0, 0, 0), (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox(~0ull, ~0ull, ~0ull), (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
}

TEST(Random, UniformIsInRangeAndSpread) {
  double sum = 0;
  for (uint64_t i = 0; i < 10000; ++i) {
    const double u = UniformAt(7, 1, i);
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum += u;
  }
  EXPECT_NEAR(sum / 10000, 0.5, 0.02);
}

Result<int> Half(int x) {
  if (x % 2 != 0) return FailParam(Code::kInvalidArgument, "x", "{} is odd", x);
  return x / 2;
}
Result<int> Quarter(int x) {
  CADRE_ASSIGN(const int half, Half(x));
  return Half(half);
}

TEST(Error, TravelsUp) {
  EXPECT_EQ(*Quarter(12), 3);
  ASSERT_FALSE(Quarter(6).has_value());
  EXPECT_EQ(Quarter(6).error().message, "3 is odd");
  EXPECT_EQ(Quarter(6).error().param, "x");
}

TEST(Log, KnowsVllmsLevelNames) {
  for (const char* name : {"CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG", "NOTSET", "trace", "off"}) {
    EXPECT_TRUE(ParseLogLevel(name).has_value()) << name;
  }
  EXPECT_FALSE(ParseLogLevel("loud").has_value());
}

}  // namespace
}  // namespace cadre
