// The balancer's flags: the documents' lines, what they bring with them, rules and refusals.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config/command_line.h"
#include "config/parse.h"

namespace cadre::config {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Args = std::vector<std::string>;

ParallelOptions Serve(const Args& args) {
  const auto parsed = ParseServe(args, {});
  EXPECT_TRUE(parsed.has_value()) << parsed.error().message;
  return parsed ? parsed->options.engine.parallel : ParallelOptions();
}

Error Refused(const Args& args) {
  const auto parsed = ParseServe(args, {});
  EXPECT_FALSE(parsed.has_value());
  return parsed ? Error() : parsed.error();
}

std::string Message(Args args) {
  args.insert(args.begin(), "m");
  return Refused(args).message;
}

std::string Notes(const Args& args) {
  const auto parsed = ParseServe(args, {});
  EXPECT_TRUE(parsed.has_value()) << parsed.error().message;
  std::string all;
  for (const Notice& notice : parsed->notices) all += notice.text + "\n";
  return all;
}

TEST(Eplb, LinesOfTheDocuments) {
  const std::string model = "deepseek-ai/DeepSeek-V3-0324";
  const EplbOptions documents{
      .window_size = 1000, .step_interval = 3000, .num_redundant_experts = 2, .log_balancedness = true};
  EXPECT_EQ(
      Serve(
          {model, "--tensor-parallel-size", "1", "--data-parallel-size", "8", "--enable-expert-parallel",
           "--enable-eplb", "--eplb-config",
           R"({"window_size":1000,"step_interval":3000,"num_redundant_experts":2,"log_balancedness":true})"})
          .eplb,
      documents);
  // This one is printed without --enable-expert-parallel.
  const ParallelOptions brought =
      Serve({"Qwen/Qwen3-30B-A3B", "--enable-eplb", "--eplb-config.window_size", "1000",
             "--eplb-config.step_interval", "3000", "--eplb-config.num_redundant_experts", "2",
             "--eplb-config.log_balancedness", "true"});
  EXPECT_TRUE(brought.enable_eplb);
  EXPECT_TRUE(brought.enable_expert_parallel);
  EXPECT_EQ(brought.eplb, documents);
}

TEST(Eplb, RulesInVllmsWords) {
  EXPECT_EQ(Message({"--enable-eplb", "-dp", "2", "--no-enable-expert-parallel"}),
            "enable_expert_parallel must be True to use EPLB.");
  EXPECT_EQ(Message({"--enable-eplb", "-dp", "2", "--eplb-config.communicator", "pynccl"}),
            "pynccl communicator is incompatible with async EPLB due to NCCL multi-stream conflicts. Use "
            "'torch_gloo' or 'nixl' instead, or leave communicator unset for automatic selection.");
  EXPECT_THAT(Message({"--enable-eplb", "-dp", "2", "--num-redundant-experts=1024"}),
              HasSubstr("num_redundant_experts (1024) must be at most 1023"));
  EXPECT_THAT(Message({"--enable-eplb", "-dp", "2", "--eplb-config.num_redundant_experts", "-1"}),
              HasSubstr("--eplb-config.num_redundant_experts must be at least 0"));
  EXPECT_THAT(Message({"--enable-eplb", "-dp", "2", "--eplb-config.window_size", "2000000000"}),
              HasSubstr("window_size (2000000000) must be at most 1048576 steps"));
  EXPECT_THAT(Message({"--enable-eplb", "-dp", "2", "--eplb-config.step_interval", "-5"}),
              HasSubstr("--eplb-config.step_interval must be at least 1"));
  EXPECT_THAT(Message({"--enable-eplb", "-dp", "2", "--eplb-config.step_interval", "3000000000"}),
              HasSubstr("must be at most 2147483647"));
  EXPECT_THAT(Message({"--enable-eplb", "-dp", "2", "--eplb-config.replica_routing", "far"}),
              HasSubstr("not one of hash,nearest"));
  EXPECT_EQ(Message({"--eplb-init", "f"}), "--eplb-init wants --enable-eplb");
  EXPECT_EQ(Message({"--num-redundant-experts", "4"}),
            "num_redundant_experts is set to 4 but EPLB is not enabled. Either enable EPLB or unset "
            "num_redundant_experts.");
}

TEST(Eplb, SaysWhatItBrings) {
  EXPECT_EQ(Notes({"m", "-ep", "-dp", "2", "--enable-eplb"}), "");
  EXPECT_THAT(Notes({"m", "-dp", "2", "--enable-eplb"}),
              HasSubstr("--enable-expert-parallel is switched on"));
  EXPECT_THAT(Notes({"m", "-ep", "--enable-eplb"}),
              HasSubstr("one rank holds every expert, so there is nothing"));
  EXPECT_THAT(Notes({"m", "-ep", "-dp", "2", "--enable-eplb", "--eplb-config.communicator", "nixl"}),
              HasSubstr("--eplb-config.communicator: no effect here"));
  EXPECT_THAT(Notes({"m", "--eplb-config.window_size", "7"}), HasSubstr("no effect without --enable-eplb"));
  // The documents' default of use_async is honoured when written.
  EXPECT_TRUE(Serve({"m", "-ep", "-dp", "2", "--enable-eplb"}).eplb.use_async);
  EXPECT_FALSE(Serve({"m", "-ep", "-dp", "2", "--enable-eplb", "--eplb-config", R"({"use_async":false})"})
                   .eplb.use_async);
  EXPECT_EQ(Serve({"m", "-ep", "-dp", "2", "--enable-eplb", "--eplb-config.communicator", "pynccl",
                   "--eplb-config.use_async", "false"})
                .eplb.communicator,
            "pynccl");
}

TEST(Eplb, OlderSpellings) {
  const Args all{"m",
                 "-ep",
                 "-dp",
                 "2",
                 "--enable-eplb",
                 "--num-redundant-experts",
                 "2",
                 "--eplb-window-size=10",
                 "--eplb-step-interval",
                 "5",
                 "--eplb-log-balancedness"};
  EXPECT_EQ(
      Serve(all).eplb,
      (EplbOptions{
          .window_size = 10, .step_interval = 5, .num_redundant_experts = 2, .log_balancedness = true}));
  EXPECT_EQ(Notes(all),
            "--eplb-log-balancedness is the older spelling of --eplb-config.log_balancedness\n"
            "--eplb-step-interval is the older spelling of --eplb-config.step_interval\n"
            "--eplb-window-size is the older spelling of --eplb-config.window_size\n"
            "--num-redundant-experts is the older spelling of --eplb-config.num_redundant_experts\n");
  EXPECT_THAT(Refused({"m", "--eplb-window-size", "x"}).message,
              HasSubstr("--eplb-config.window_size wants an integer"));
  // The switch takes no word: m stays the model.
  auto line = ParseCommandLine(Command::kServe, Args{"--eplb-log-balancedness", "m"});
  EXPECT_THAT(line->words, ElementsAre("m"));
}

}  // namespace
}  // namespace cadre::config
