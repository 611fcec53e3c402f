#include "eplb/load_record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace cadre::eplb {
namespace {

using ::testing::HasSubstr;

LoadRecord Sample() {
  LoadRecord record{
      .model = "Qwen3MoeForCausalLM \"tiny\"", .top_k = 2, .steps = 1000, .load = LoadTable(2, 3)};
  record.load.counts = {1, 0, 9007199254740992, 4, 5, 6};
  return record;
}

TEST(LoadRecord, ReadsBackEqual) {
  const auto back = ReadLoadRecord(WriteLoadRecord(Sample()));
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(*back, Sample());
  EXPECT_EQ(*ReadLoadRecord(LoadRecordJson(Sample()).Dump()), Sample());
}

TEST(LoadRecord, BadTextIsRefusedByMember) {
  const auto with = [](const char* key, Json value) {
    Json json = LoadRecordJson(Sample());
    json.Set(key, std::move(value));
    const auto read = ReadLoadRecord(json.Dump());
    return read ? "accepted" : read.error().param + ": " + read.error().message;
  };
  EXPECT_THAT(with("cadre_eplb_load", 2), HasSubstr("version 2"));
  EXPECT_THAT(with("model", 3), HasSubstr("model: "));
  EXPECT_THAT(with("layers", 3), HasSubstr("2 layers where 'layers' says 3"));
  EXPECT_THAT(with("layers", -1), HasSubstr("layers: 'layers' of a recorded load must be an integer"));
  EXPECT_THAT(with("layers", int64_t{1} << 40), HasSubstr("must be an integer"));
  EXPECT_THAT(with("experts", 1048576), HasSubstr("layer 0: wanted 1048576 numbers, found 3"));
  EXPECT_THAT(with("top_k", 0), HasSubstr("top_k: "));
  EXPECT_THAT(with("top_k", 4), HasSubstr("from 1 to 3"));
  EXPECT_THAT(with("steps", "x"), HasSubstr("steps: "));
  EXPECT_THAT(with("counts", 1), HasSubstr("one array a layer"));
  const auto counts = [&](const char* text) { return with("counts", *Json::Parse(text)); };
  EXPECT_THAT(counts("[[1,2,3],[4,5]]"), HasSubstr("layer 1: wanted 3 numbers, found 2"));
  EXPECT_THAT(counts("[[1,2,3],{}]"), HasSubstr("found object"));
  EXPECT_THAT(counts("[[1,2,3],[4,5,-6]]"), HasSubstr("-6 is no count"));
  EXPECT_THAT(counts("[[1,2,3],[4,5,0.5]]"), HasSubstr("0.5 is no count"));
  EXPECT_THAT(counts("[[1,2,3],[4,5,9007199254740993]]"), HasSubstr("no count"));
  EXPECT_FALSE(ReadLoadRecord("{"));
  EXPECT_THAT(ReadLoadRecord("{}").error().message, HasSubstr("no recorded load"));
  EXPECT_THAT(ReadLoadRecord("[1]").error().message, HasSubstr("no recorded load"));
  Json lacking = LoadRecordJson(Sample());
  lacking.AsObject().erase(lacking.AsObject().begin() + 4);
  EXPECT_THAT(ReadLoadRecord(lacking.Dump()).error().message, HasSubstr("lacks 'top_k'"));
}

TEST(LoadRecord, AnotherModelsIsRefused) {
  const LoadRecord record = Sample();
  EXPECT_TRUE(CheckRecord(record, record.model, 2, 3, 2));
  EXPECT_THAT(CheckRecord(record, record.model, 58, 256, 8).error().message,
              HasSubstr("of 2 MoE layers with 3 experts, 2 a token; the model has 58 with 256, 8 a token"));
  EXPECT_THAT(CheckRecord(record, "other", 2, 3, 2).error().message, HasSubstr("not of 'other'"));
}

}  // namespace
}  // namespace cadre::eplb
