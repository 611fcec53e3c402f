// Which ranks run where, for the lines that people paste and the launchers that start them.
#include "config/launch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace cadre::config {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Args = std::vector<std::string>;

Result<Launch> Try(Args args, const Environment& env = {}) {
  args.insert(args.begin(), "m");
  CADRE_ASSIGN(const auto parsed, ParseServe(args, env));
  return ResolveLaunch(parsed.options.engine.parallel);
}

Launch Of(const Args& args, const Environment& env = {}) {
  auto launch = Try(args, env);
  EXPECT_TRUE(launch.has_value()) << launch.error().message;
  return launch.value_or(Launch());
}

std::string ErrorOf(const Args& args, const Environment& env = {}) {
  auto launch = Try(args, env);
  EXPECT_FALSE(launch.has_value());
  return launch ? "" : launch.error().message;
}

void ExpectRanks(const Launch& launch, int first, int count, int all) {
  EXPECT_EQ(launch.first_rank, first);
  EXPECT_EQ(launch.num_local_ranks, count);
  EXPECT_EQ(launch.num_ranks, all);
}

TEST(Launch, OneNode) {
  const Launch launch = Of({"-dp", "4", "-tp", "2", "-ep"});
  ExpectRanks(launch, 0, 8, 8);
  EXPECT_TRUE(launch.one_node() && launch.first && !launch.headless);
  EXPECT_TRUE(Of({"-dp", "4", "-dpl", "4"}).one_node());
  EXPECT_EQ(Of({"-dp", "4", "-dpl", "4", "-dph", "--data-parallel-start-rank", "0"}).balancing,
            LoadBalancing::kInternal);  // local = all: nothing to be hybrid about
}

TEST(Launch, InternalLoadBalancing) {
  const Launch head =
      Of({"-dp", "16", "-dpl", "8", "-dpa", "10.1.59.30", "-dpp", "13345", "--api-server-count=8"});
  ExpectRanks(head, 0, 8, 16);
  EXPECT_TRUE(head.first && !head.headless);
  EXPECT_EQ(head.address + " " + std::to_string(head.port), "10.1.59.30 13345");
  const Launch second = Of({"-dp", "16", "-dpl", "8", "-dpr", "8", "-dpa", "10.1.59.30", "--headless"});
  ExpectRanks(second, 8, 8, 16);
  EXPECT_TRUE(!second.first && second.headless);
  EXPECT_EQ(second.port, 29550);
  ExpectRanks(Of({"-dp", "4", "-tp", "2", "-dpr", "3", "--headless"}), 6, 2, 8);
  const Launch answers = Of({"-dp", "4", "-dpl", "0", "-dpa", "10.0.0.1"});
  ExpectRanks(answers, 0, 0, 4);
  EXPECT_TRUE(answers.first && !answers.headless && !answers.one_node());
  const Launch computes = Of({"-dp", "4", "-dpl", "4", "--headless", "-dpa", "10.0.0.1"});
  ExpectRanks(computes, 0, 4, 4);
  EXPECT_TRUE(!computes.first && computes.headless && !computes.one_node());
  const Launch lonely = Of({"-dp", "16", "-dpl", "8"});
  EXPECT_EQ(lonely.address + " " + lonely.address_source, "127.0.0.1 default");
}

TEST(Launch, HybridAndExternalLoadBalancing) {
  const Launch hybrid = Of({"-dp", "16", "-dpl", "8", "-dpr", "8", "-dph", "-dpa", "h"});
  ExpectRanks(hybrid, 8, 8, 16);
  EXPECT_EQ(hybrid.balancing, LoadBalancing::kHybrid);
  EXPECT_FALSE(hybrid.headless || hybrid.first);
  EXPECT_EQ(Of({"-dp", "16", "-dpl", "8", "-dpr", "8"}).balancing, LoadBalancing::kHybrid);  // inferred
  EXPECT_EQ(Of({"-dp", "16", "-dpl", "1", "-dpr", "8", "-dph"}).balancing, LoadBalancing::kExternal);
  for (int rank = 0; rank < 2; ++rank) {
    const Launch external = Of({"-dp", "2", "-tp", "2", "--data-parallel-rank", std::to_string(rank)});
    ExpectRanks(external, 2 * rank, 2, 4);
    EXPECT_EQ(external.balancing, LoadBalancing::kExternal);
    EXPECT_EQ(external.first, rank == 0);
  }
  const Launch spmd = Of({}, {{"VLLM_DP_SIZE", "4"},
                              {"VLLM_DP_RANK", "3"},
                              {"VLLM_DP_MASTER_IP", "10.0.0.1"},
                              {"VLLM_DP_MASTER_PORT", "1234"}});
  ExpectRanks(spmd, 3, 1, 4);
  EXPECT_EQ(spmd.address + " " + std::to_string(spmd.port), "10.0.0.1 1234");
}

TEST(Launch, NodesOfTensorParallelism) {
  const Args line = {"-tp",           "4",    "--nnodes",   "2", "--master-addr", "n0",
                     "--master-port", "2222", "--node-rank"};
  Args first = line, second = line;
  first.push_back("0");
  second.push_back("1");
  ExpectRanks(Of(first), 0, 2, 4);
  const Launch launch = Of(second);
  ExpectRanks(launch, 2, 2, 4);
  EXPECT_TRUE(launch.headless && !launch.first);
  EXPECT_EQ(launch.address + " " + std::to_string(launch.port) + " " + launch.address_source,
            "n0 2222 --master-addr");
  EXPECT_EQ(Of({"-tp", "2", "-n", "2"}).port, 29501);
  ExpectRanks(Of({"-dp", "3", "-tp", "2", "-n", "2", "-r", "1"}), 4, 2, 6);  // whole replicas: two and one
}

TEST(Launch, WhatDoesNotFitTogether) {
  for (const char* more : {"--data-parallel-hybrid-lb", "--data-parallel-external-lb"})
    EXPECT_THAT(ErrorOf({"-dp", "4", "-dpl", "0", more}), HasSubstr("runs none")) << more;
  EXPECT_THAT(ErrorOf({"-dp", "4", "-dpl", "0", "-dpr", "1"}), HasSubstr("runs none"));
  EXPECT_THAT(ErrorOf({"-dp", "4", "-dpl", "3", "-dpr", "2", "--headless"}), HasSubstr("ranks 2 to 4"));
  EXPECT_THAT(ErrorOf({"-dp", "4", "-dpr", "2"}), HasSubstr("add one of the two"));
  EXPECT_THAT(ErrorOf({"-tp", "2", "-n", "3"}), HasSubstr("--nnodes 3 is more than the 2 ranks"));
  EXPECT_THAT(ErrorOf({"-tp", "2", "-n", "2", "-r", "2"}), HasSubstr("must be below --nnodes"));
  EXPECT_THAT(ErrorOf({"-dp", "2", "-n", "2", "-dpr", "1"}), HasSubstr("leave out"));
}

TEST(Launch, Launchers) {
  const Environment slurm{{"SLURM_NTASKS", "2"}, {"SLURM_PROCID", "1"}, {"SLURM_JOB_NODELIST", "cn[07-08]"}};
  const Launch task = Of({"-dp", "4"}, slurm);
  ExpectRanks(task, 2, 2, 4);
  EXPECT_EQ(task.address, "cn07");
  EXPECT_TRUE(task.headless);
  EXPECT_TRUE(Of({}, slurm).one_node());                                     // nothing to spread
  EXPECT_FALSE(Of({"-dp", "4", "-dpl", "1", "-dpa", "x"}, slurm).headless);  // flags win
  const Launch torchrun =
      Of({"-dp", "2"}, {{"WORLD_SIZE", "2"}, {"RANK", "0"}, {"MASTER_ADDR", "h"}, {"MASTER_PORT", "29500"}});
  ExpectRanks(torchrun, 0, 1, 2);
  EXPECT_EQ(torchrun.port, 29501);
  const Launch lws =
      Of({"-dp", "2"}, {{"LWS_GROUP_SIZE", "2"}, {"LWS_WORKER_INDEX", "1"}, {"LWS_LEADER_ADDRESS", "l"}});
  ExpectRanks(lws, 1, 1, 2);
  EXPECT_EQ(lws.address_source, "LWS_LEADER_ADDRESS");
  const Environment mpi{{"OMPI_COMM_WORLD_SIZE", "2"}, {"OMPI_COMM_WORLD_RANK", "1"}};
  EXPECT_THAT(ErrorOf({"-dp", "2"}, mpi), HasSubstr("Open MPI started 2 processes"));
  ExpectRanks(Of({"-dp", "2", "-dpa", "h"}, mpi), 1, 1, 2);
  EXPECT_THAT(ErrorOf({"-dp", "2"}, {{"PMI_SIZE", "x"}, {"PMI_RANK", "0"}}),
              HasSubstr("PMI_SIZE must be a number"));
}

TEST(Launch, HostLists) {
  EXPECT_THAT(*ExpandHostList("a"), ElementsAre("a"));
  EXPECT_THAT(*ExpandHostList("n[01-03,7]-x,m,k[9-10]"),
              ElementsAre("n01-x", "n02-x", "n03-x", "n7-x", "m", "k9", "k10"));
  EXPECT_TRUE(ExpandHostList("")->empty());
  for (const char* bad : {"n[1", "n[a-b]", "n[3-1]", "n[0-99999],m[0-99999]", "n[1][2]", "n[-]"}) {
    EXPECT_FALSE(ExpandHostList(bad).has_value()) << bad;
  }
}

}  // namespace
}  // namespace cadre::config
