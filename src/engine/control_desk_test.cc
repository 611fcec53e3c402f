#include "engine/control_desk.h"

#include <gtest/gtest.h>

namespace cadre::engine {
namespace {

class SilentSink : public EventSink {
 public:
  void OnPrompt(int, std::vector<Logprobs>) override {}
  void OnTokens(std::vector<GeneratedToken>) override {}
  void OnFinish(std::vector<GeneratedToken>, Finish) override {}
};

struct Desk {
  void Add(int64_t id) {
    auto sequence = std::make_unique<Sequence>();
    sequence->id = SeqId(id);
    sequence->request.prompt = sequence->tokens = std::vector<int32_t>(40, static_cast<int32_t>(id));
    sequence->sink = std::make_shared<SilentSink>();
    scheduler.Add(std::move(sequence));
    next = SeqId(id + 1);
  }
  void Tell(ControlRequest request) {
    desk.Take(
        {.request = std::move(request),
         .done =
             [this](const Result<ControlState>& state) {
               answers.push_back(state ? (state->paused ? "paused" : "running") : state.error().message);
             }},
        next, scheduler);
  }
  // The ids of a step that is made.
  std::vector<int64_t> Step() {
    desk.Advance(scheduler);
    std::vector<int64_t> ids;
    if (desk.paused()) return ids;
    for (const ScheduledSequence& scheduled : scheduler.Schedule(1000)) {
      ids.push_back(scheduled.sequence->id.value);
      scheduler.Computed(scheduled);
      scheduled.sequence->tokens.push_back(7);
    }
    return ids;
  }

  Scheduler scheduler{SchedulerOptions(), 100, 16};
  ControlDesk desk;
  SeqId next{0};
  std::vector<std::string> answers;
};

using Ids = std::vector<int64_t>;
using Answers = std::vector<std::string>;

TEST(ControlDesk, WaitsForWhatRunsAndHoldsWhatComes) {
  Desk d;
  d.Add(0);
  EXPECT_EQ(d.Step(), Ids({0}));
  d.Tell({.kind = ControlKind::kPause, .mode = PauseMode::kWait});
  d.Add(1);
  EXPECT_EQ(d.Step(), Ids({0}));
  EXPECT_TRUE(d.answers.empty());
  EXPECT_TRUE(d.desk.State().paused);  // as good as
  d.scheduler.Remove(SeqId(0));
  EXPECT_EQ(d.Step(), Ids());
  EXPECT_EQ(d.answers, Answers({"paused"}));
  d.Tell({.kind = ControlKind::kResume});
  EXPECT_EQ(d.Step(), Ids({1}));
  EXPECT_FALSE(d.desk.State().paused);
}

TEST(ControlDesk, AHeldRequestOfHighPriorityKeepsNobodyBack) {
  Desk d;
  d.scheduler = Scheduler({.max_num_seqs = 1, .policy = SchedulingPolicy::kPriority}, 100, 16);
  d.Add(0);
  d.Add(1);
  d.Tell({.kind = ControlKind::kPause, .mode = PauseMode::kWait});
  d.Add(2);
  d.scheduler.All().back()->request.priority = -5;  // of the list, sorted or not: ids decide who is held
  EXPECT_EQ(d.Step(), Ids({0}));
  d.scheduler.Remove(SeqId(0));
  EXPECT_EQ(d.Step(), Ids({1}));
}

TEST(ControlDesk, ResumeEndsAPauseThatStillWaits) {
  Desk d;
  d.Add(0);
  d.Tell({.kind = ControlKind::kPause, .mode = PauseMode::kWait});
  d.Tell({.kind = ControlKind::kResume});
  EXPECT_EQ(d.answers, Answers({"running", "running"}));
  d.Add(1);
  EXPECT_EQ(d.Step(), Ids({0, 1}));
}

TEST(ControlDesk, AStrongerPauseEndsTheWait) {
  Desk d;
  d.Add(0);
  d.Tell({.kind = ControlKind::kPause, .mode = PauseMode::kWait});
  d.Tell({.kind = ControlKind::kPause, .mode = PauseMode::kKeep, .clear_cache = false});
  EXPECT_EQ(d.answers, Answers({"paused", "paused"}));
  EXPECT_EQ(d.Step(), Ids());
  EXPECT_FALSE(d.desk.keeps_cache());  // the first had asked for it
}

TEST(ControlDesk, KeptRequestsLoseWhatTheyHaveComputedOrNot) {
  for (const bool clear : {true, false}) {
    Desk d;
    d.Add(0);
    d.Step();
    const Sequence& sequence = *d.scheduler.All().front();
    ASSERT_EQ(sequence.num_computed, 40);
    d.Tell({.kind = ControlKind::kPause, .mode = PauseMode::kKeep, .clear_cache = clear});
    EXPECT_EQ(sequence.num_computed, clear ? 0 : 40);
    EXPECT_EQ(d.desk.keeps_cache(), !clear);
    EXPECT_EQ(sequence.num_preemptions, 0);
    d.Tell({.kind = ControlKind::kResume});
    EXPECT_EQ(d.Step(), Ids({0}));
    EXPECT_EQ(sequence.num_computed, 41);
    d.scheduler.pool().CheckIntegrity();
  }
}

TEST(ControlDesk, RanksThatHoldSeveralOrdersMeetAtOne) {
  const WeightOrder a{.folder = "/a"}, b{.folder = "/b"};
  Desk one, two;
  for (const WeightOrder& order : {a, b}) one.Tell({.kind = ControlKind::kWeights, .weights = order});
  for (const WeightOrder& order : {b, a, a}) two.Tell({.kind = ControlKind::kWeights, .weights = order});
  const uint64_t first = one.desk.NextOrder();
  EXPECT_NE(first, 0u);
  EXPECT_EQ(two.desk.NextOrder(), first);
  EXPECT_EQ(one.desk.TakeOrder(first).size(), 1u);
  const bool a_first = first == a.Id();
  EXPECT_EQ(two.desk.TakeOrder(first).size(), a_first ? 2u : 1u);
  EXPECT_EQ(one.desk.NextOrder(), a_first ? b.Id() : a.Id());
  EXPECT_EQ(two.desk.NextOrder(), one.desk.NextOrder());
}

TEST(ControlDesk, AnOrderThatNotAllGetIsGivenUp) {
  Desk d;
  d.Tell({.kind = ControlKind::kWeights, .weights = {.folder = "/a", .timeout_s = 0}});
  d.desk.Advance(d.scheduler);
  ASSERT_EQ(d.answers.size(), 1u);
  EXPECT_NE(d.answers[0].find("not all ranks"), std::string::npos);
  EXPECT_EQ(d.desk.NextOrder(), 0u);
}

TEST(WeightOrder, IsTheSameAsTextAndBack) {
  const WeightOrder order{.kind = WeightOrder::Kind::kConnect,
                          .folder = "/a \"b\"",
                          .host = "h",
                          .port = 5,
                          .first_receiver = 3,
                          .world_size = 9,
                          .timeout_s = 7,
                          .expected = "[]"};
  const WeightOrder adapter{
      .kind = WeightOrder::Kind::kLoadAdapter, .folder = "/p", .name = "\"n\"", .in_place = true};
  const auto again = WeightOrder::FromText(adapter.ToText());
  ASSERT_TRUE(again.has_value());
  EXPECT_EQ(*again, adapter);
  EXPECT_NE(adapter.Id(), order.Id());
  const auto back = WeightOrder::FromText(order.ToText());
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(*back, order);
  EXPECT_EQ(back->Id(), order.Id());
  for (const char* bad : {"", "{}", "[]", "[9,\"\",\"\",0,0,0,0,\"\"]", "[0,\"\",\"\",0,0,0,\"\",\"\"]"})
    EXPECT_FALSE(WeightOrder::FromText(bad).has_value()) << bad;
}

}  // namespace
}  // namespace cadre::engine
