#include "app/load_view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "app/load_picture.h"
#include "app/load_text.h"
#include "engine/eplb_json.h"
#include "engine/eplb_testing.h"
#include "http/server.h"
#include "model/weights_testing.h"
#include "sys/files.h"

namespace cadre::app {
namespace {

using testing::HasSubstr;
using testing::Not;

// Expert e of layer l has 1000 / (1 + its place after expert 3 l) rows: Zipf.
eplb::LoadRecord Zipf(int32_t layers, int32_t experts) {
  eplb::LoadRecord record{
      .model = "M <one>\x1b[31m", .top_k = 1, .steps = 10, .load = eplb::LoadTable(layers, experts)};
  for (int32_t l = 0; l < layers; ++l)
    for (int32_t e = 0; e < experts; ++e)
      record.load.Layer(l)[static_cast<size_t>((e + 3 * l) % experts)] = 100000 / (1 + e);
  return record;
}

class Load : public testing::Test {
 protected:
  Load() { options_.load = folder_.path() + "/load.json"; }
  Result<LoadView> Look(const std::string& text) {
    EXPECT_TRUE(sys::ReplaceFile(*options_.load, text));
    return LookAtLoad(options_);
  }
  void Ranks(int ranks, int copies) {
    options_.engine.parallel.data_parallel_size = ranks;
    options_.engine.parallel.enable_expert_parallel = ranks > 1;
    options_.engine.parallel.eplb.num_redundant_experts = copies;
  }
  const model::test::TempFolder folder_;
  config::InspectOptions options_;
};

// As a terminal counts them: the lines' widths without ANSI escapes.
size_t Widest(const std::string& text) {
  size_t widest = 0, width = 0;
  bool escape = false;
  for (const char c : text) {
    if (c == '\x1b') escape = true;
    if (!escape && c != '\n' && (c & 0xC0) != 0x80) ++width;
    if (escape && c == 'm') escape = false;
    if (c == '\n') widest = std::max(widest, std::exchange(width, 0));
  }
  return std::max(widest, width);
}

TEST_F(Load, ARecordIsPlacedByTheFlagsAndByThePolicy) {
  Ranks(4, 8);
  const auto view = Look(eplb::WriteLoadRecord(Zipf(6, 32)));
  ASSERT_TRUE(view) << view.error().message;
  ASSERT_TRUE(view->before && view->after);
  EXPECT_EQ(view->layout.num_slots, 40);
  EXPECT_LT(view->before->balancedness, 0.7);
  EXPECT_GT(view->after->balancedness, 0.9);
  const std::vector<double> shares = view->after->RankShares();
  EXPECT_NEAR(std::accumulate(shares.begin(), shares.end(), 0.0), 4, 1e-9);
  const Json json = LoadJson(*view);
  options_.engine.parallel.enable_expert_parallel = false;  // experts are cut over the ranks then
  EXPECT_FALSE(LookAtLoad(options_)->before);
  EXPECT_EQ(json.Find("before")->Find("balancedness")->AsDouble(), view->before->balancedness);
  EXPECT_EQ(json.Find("after")->Find("maps")->AsArray().size(), 6u);
}

TEST_F(Load, TheStateOfAServerHasItsOwnMaps) {
  const auto view = Look(engine::EplbStateJson(engine::SampleEplbState()).Dump());
  ASSERT_TRUE(view) << view.error().message;
  EXPECT_EQ(view->before->slots, (std::vector<std::vector<int32_t>>{{0, 1, 2, 0}, {0, 1, 2, 0}}));
  EXPECT_EQ(view->after->slots, (std::vector<std::vector<int32_t>>{{0, 1, 2, 0}, {1, 0, 2, 0}}));
  EXPECT_EQ(view->after->name, "present map (epoch 2)");
  EXPECT_EQ(view->before->rank_loads[0], (std::vector<double>{15, 15}));
}

TEST_F(Load, AServerIsAskedAndItsErrorsAreShown) {
  int status = 200;
  std::string target;
  http::ServerOptions serve;
  serve.host = "127.0.0.1";
  serve.port = 0;
  const auto server =
      *http::Server::Start(serve, [&](http::Request request, std::shared_ptr<http::ResponseWriter> writer) {
        target = request.path;
        writer->Send({status,
                      "application/json",
                      {},
                      status == 200 ? engine::EplbStateJson(engine::SampleEplbState()).Dump()
                                    : R"({"error":{"message":"start it with --enable-eplb"}})"});
      });
  for (const char* path : {"", "/", "/eplb"}) {
    options_.load = Format("http://127.0.0.1:{}{}", server->port(), path);
    const auto view = LookAtLoad(options_);
    ASSERT_TRUE(view) << view.error().message;
    EXPECT_EQ(target, "/eplb");
  }
  status = 404;
  EXPECT_THAT(LookAtLoad(options_).error().message, HasSubstr("answers 404: start it with --enable-eplb"));
  options_.load = "http://";
  EXPECT_THAT(LookAtLoad(options_).error().message, HasSubstr("--load wants a file or http://"));
}

TEST_F(Load, WhatIsNoLoadOrAnotherModelsIsRefused) {
  EXPECT_THAT(Look("{}").error().message, HasSubstr("no recorded load"));
  EXPECT_THAT(Look("hello").error().message, HasSubstr(*options_.load));
  EXPECT_THAT(Look(R"({"maps":[]})").error().message, HasSubstr("lacks 'load'"));
  options_.engine.model.model = CADRE_SOURCE_DIR "/models/demo";
  EXPECT_THAT(Look(eplb::WriteLoadRecord(Zipf(6, 32))).error().message,
              HasSubstr("Record one with this model"));
  options_.load = folder_.path() + "/none";
  EXPECT_EQ(LookAtLoad(options_).error().code, Code::kNotFound);
}

TEST_F(Load, CellsAreTheLargestOfWhatTheyStandFor) {
  eplb::LoadTable load(3, 5);
  load.counts = {5, 0, 0, 0, 5, /**/ 1, 1, 1, 1, 6, /**/ 0, 0, 0, 0, 0};
  const Grid all = ExpertGrid(load, 64, 80);
  EXPECT_EQ(all.rows, 3);
  EXPECT_EQ(all.columns, 5);
  EXPECT_EQ(all.At(0, 0), 2.5);
  EXPECT_EQ(all.At(1, 4), 3);
  EXPECT_EQ(all.At(2, 4), 0);
  const Grid few = ExpertGrid(load, 2, 3);
  EXPECT_EQ(few.rows, 2);
  EXPECT_EQ(few.columns, 3);
  EXPECT_EQ(few.At(0, 2), 3);  // layers 0 and 1, expert 4
  EXPECT_EQ(few.At(0, 1), 0.5);
  EXPECT_EQ(few.At(1, 0), 0);
}

TEST_F(Load, LevelsAreNamedByTheirBounds) {
  EXPECT_EQ(ExpertLevel(0), 0);
  EXPECT_EQ(ExpertLevel(0.1), 1);
  EXPECT_STREQ(ExpertLevelName(ExpertLevel(0.99)), "<1");
  EXPECT_STREQ(ExpertLevelName(ExpertLevel(1)), "<2");
  EXPECT_STREQ(ExpertLevelName(ExpertLevel(100)), "≥8");
  EXPECT_STREQ(RankLevelName(RankLevel(1)), "even");
  EXPECT_STREQ(RankLevelName(RankLevel(1.1)), "<1.25");
  EXPECT_STREQ(RankLevelName(RankLevel(0.3)), "<0.5");
}

TEST_F(Load, TheTextFitsItsWidth) {
  for (const auto& [layers, experts, ranks] : {std::tuple(6, 32, 4),
                                               {58, 256, 8},
                                               {1, 8, 2},
                                               {94, 128, 32},
                                               {3, 300, 100},
                                               {200, 1000, 3},
                                               {2, 5, 1}}) {
    Ranks(ranks, ranks == 1 ? 0 : 5);
    const auto view = Look(eplb::WriteLoadRecord(Zipf(layers, experts)));
    ASSERT_TRUE(view) << view.error().message;
    for (const int32_t width : {80, 132}) {
      const std::string plain = LoadText(*view, {.width = width}),
                        color = LoadText(*view, {.width = width, .color = true});
      EXPECT_LE(Widest(plain), static_cast<size_t>(width)) << plain;
      EXPECT_THAT(plain, Not(HasSubstr("\x1b")));  // nothing of a stranger's words either
      EXPECT_EQ(Widest(color), Widest(plain));
      EXPECT_THAT(color, HasSubstr("\x1b[38;5;196m"));
      EXPECT_THAT(plain, HasSubstr("█"));
    }
    const std::string text = LoadText(*view, {});
    EXPECT_THAT(text, HasSubstr(Format("{} MoE layers, {} experts", layers, experts)));
    EXPECT_EQ(text.find("balancedness") != std::string::npos, ranks > 1);
  }
}

// Names in a picture are a stranger's words; it must stay well-formed.
bool IsWellFormed(const std::string& xml) {
  std::vector<std::string> open;
  for (size_t at = 0; (at = xml.find('<', at)) != std::string::npos;) {
    const size_t end = xml.find('>', at);
    if (end == std::string::npos) return false;
    const std::string tag = xml.substr(at + 1, end - at - 1);
    at = end;
    const std::string name =
        tag.substr(tag.starts_with('/') ? 1 : 0, tag.find_first_of(" /", 1) - (tag.starts_with('/') ? 1 : 0));
    if (tag.starts_with('/')) {
      if (open.empty() || open.back() != tag.substr(1)) return false;
      open.pop_back();
    } else if (!tag.ends_with('/') && !tag.starts_with('!') && name != "meta") {
      open.push_back(name);
    }
  }
  return open.empty();
}

TEST_F(Load, PicturesAreWellFormedAndBounded) {
  for (const auto& [layers, experts, ranks] :
       {std::tuple(6, 32, 4), {58, 256, 8}, {1, 8, 1}, {300, 2000, 100}, {3, 5, 2}}) {
    Ranks(ranks, ranks == 1 ? 0 : 3);
    const auto view = Look(eplb::WriteLoadRecord(Zipf(layers, experts)));
    ASSERT_TRUE(view) << view.error().message;
    const std::string svg = LoadSvg(*view), html = LoadHtml(*view);
    EXPECT_TRUE(svg.starts_with("<svg ")) << svg.substr(0, 80);
    EXPECT_TRUE(IsWellFormed(svg));
    EXPECT_TRUE(IsWellFormed(html)) << html.substr(0, 1000);
    EXPECT_THAT(svg, HasSubstr("M &lt;one&gt;"));
    EXPECT_THAT(svg, Not(HasSubstr("nan")));
    EXPECT_LT(svg.size(), size_t{8} << 20);
    EXPECT_EQ(svg.find("before: start map") != std::string::npos, ranks > 1);
    EXPECT_THAT(html, HasSubstr("<title>layer"));
    EXPECT_THAT(svg, Not(HasSubstr("<title>")));
  }
}

TEST_F(Load, NothingCountedIsDrawnAsNothing) {
  Ranks(2, 1);
  eplb::LoadRecord record = Zipf(2, 6);
  std::ranges::fill(record.load.counts, 0);
  const auto view = Look(eplb::WriteLoadRecord(record));
  ASSERT_TRUE(view) << view.error().message;
  EXPECT_THAT(LoadText(*view, {}), HasSubstr("balancedness 0.000"));
  EXPECT_THAT(LoadSvg(*view), Not(HasSubstr("nan")));
}

}  // namespace
}  // namespace cadre::app
