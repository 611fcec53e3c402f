#include "checkpoint/remote_offer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "checkpoint/remote_offer_testing.h"

namespace cadre::checkpoint {
namespace {

using test::OfferParts;
using testing::HasSubstr;

// A file of 150 bytes: 100 of region 1, none, 20 of its end, 30 of region 0.
OfferParts Good() {
  return {.regions = {{0x1000, 64, "k"}, {0x2000, 200, std::string("\0key", 4)}},
          .pieces = {{1, 0, 100}, {1, 7, 0}, {1, 180, 20}, {0, 33, 30}}};
}

TEST(RemoteOffer, FindsWhereTheFileLies) {
  const auto offer = RemoteOffer::Parse(Good().Text(), 150);
  ASSERT_TRUE(offer) << offer.error().message;
  EXPECT_EQ(offer->port(), "12345");
  ASSERT_EQ(offer->regions().size(), 2u);
  EXPECT_EQ(offer->regions()[1].key, std::string("\0key", 4));
  EXPECT_EQ(offer->regions()[1].address, 0x2000u);
  EXPECT_EQ(offer->probe()[31], std::byte{'p'});
  // Byte by byte and in stretches, against the pieces written out.
  std::vector<std::pair<size_t, uint64_t>> places;
  for (const auto& piece : Good().pieces)
    for (uint64_t i = 0; i < piece.bytes; ++i) places.emplace_back(piece.region, piece.offset + i);
  ASSERT_EQ(places.size(), 150u);
  for (uint64_t begin = 0; begin < 150; ++begin) {
    for (const uint64_t bytes : {uint64_t{1}, uint64_t{25}, 150 - begin}) {
      const auto stretch = offer->Find(begin, bytes);
      ASSERT_GT(stretch.bytes, 0u);
      ASSERT_LE(stretch.bytes, bytes);
      for (uint64_t i = 0; i < stretch.bytes; ++i)
        ASSERT_EQ(places.at(begin + i), std::pair(stretch.region, stretch.offset + i));
    }
  }
}

TEST(RemoteOffer, AFileWithoutBytesHasNoPieces) {
  OfferParts parts = Good();
  parts.pieces.clear();
  EXPECT_TRUE(RemoteOffer::Parse(parts.Text(), 0));
}

TEST(RemoteOffer, WhatDoesNotFitIsRefused) {
  const struct {
    const char* words;
    std::function<void(OfferParts&)> bend;
  } cases[] = {
      {"150", [](auto& o) { o.pieces.pop_back(); }},
      {"passes the file's end",
       [](auto& o) {
         o.pieces.push_back({1, 0, 1});
       }},
      {"does not lie in it", [](auto& o) { o.pieces[0].region = 2; }},
      {"does not lie in it", [](auto& o) { o.pieces[2].offset = 181; }},
      {"does not lie in it", [](auto& o) { o.pieces[2].offset = ~uint64_t{0} - 5; }},
      {"does not lie in it", [](auto& o) { o.pieces[0].bytes = ~uint64_t{0}; }},
      {"region 1 has", [](auto& o) { o.regions[1].bytes = ~uint64_t{0}; }},
      {"region 1 has", [](auto& o) { o.regions[1].key.resize(20000); }},
      {"region 0 of an offer",
       [](auto& o) {
         o.regions[0].bytes = 31, o.pieces[3] = {1, 0, 30};
       }},
      {"says 0 regions", [](auto& o) { o.regions.clear(); }},
      {"a port of 0", [](auto& o) { o.port.clear(); }},
      {"a port of 6", [](auto& o) { o.port = "123456"; }},
      {"goes on", [](auto& o) { o.probe += "p"; }},
      {"breaks off", [](auto& o) { o.probe.pop_back(); }},
  };
  for (const auto& [words, bend] : cases) {
    OfferParts parts = Good();
    bend(parts);
    const auto offer = RemoteOffer::Parse(parts.Text(), 150);
    ASSERT_FALSE(offer) << words;
    EXPECT_EQ(offer.error().code, Code::kDataLoss);
    EXPECT_THAT(offer.error().message, HasSubstr(words));
  }
  const std::string whole = Good().Text();
  for (size_t size = 0; size < whole.size(); ++size)
    EXPECT_FALSE(RemoteOffer::Parse(std::string_view(whole).substr(0, size), 150)) << size;
  // Numbers that a few bytes cannot hold cost nothing.
  EXPECT_FALSE(RemoteOffer::Parse(std::string(12, '\xff'), 150));
}

}  // namespace
}  // namespace cadre::checkpoint
