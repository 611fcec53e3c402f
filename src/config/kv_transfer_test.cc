// --kv-transfer-config: the documents' lines, members, refusals and what has no effect.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config/parse.h"

namespace cadre::config {
namespace {

using testing::HasSubstr;
using Args = std::vector<std::string>;

Result<Parsed<ServeOptions>> Parsed1(Args args, const Environment& env = {}) {
  args.insert(args.begin(), "m");
  return ParseServe(args, env);
}

KvTransferOptions Taken(const Args& args, const Environment& env = {}) {
  const auto parsed = Parsed1(args, env);
  EXPECT_TRUE(parsed.has_value()) << parsed.error().message;
  return parsed ? parsed->options.engine.kv_transfer : KvTransferOptions();
}

std::string Notes(const Args& args) {
  const auto parsed = Parsed1(args);
  EXPECT_TRUE(parsed.has_value()) << parsed.error().message;
  std::string all;
  for (const Notice& notice : parsed ? parsed->notices : std::vector<Notice>()) all += notice.text + "\n";
  return all;
}

std::string Refused(const std::string& json) {
  const auto parsed = Parsed1({"--kv-transfer-config", json});
  EXPECT_FALSE(parsed.has_value()) << json;
  return parsed ? "" : parsed.error().message;
}

TEST(KvTransfer, LinesOfTheDocuments) {
  const Args nixl{"--kv-transfer-config", R"({"kv_connector":"NixlConnector","kv_role":"kv_both"})"};
  KvTransferOptions wanted;
  wanted.connector = "NixlConnector";
  wanted.role = "kv_both";
  EXPECT_EQ(Taken(nixl), wanted);
  EXPECT_EQ(wanted.load_failure_policy, "recompute");
  EXPECT_EQ(Taken({"--kv-transfer-config.kv_connector", "NixlConnector", "--kv-transfer-config.kv_role",
                   "kv_both"}),
            wanted);
  EXPECT_FALSE(Taken({}).enabled());
  EXPECT_FALSE(Taken({"--kv-transfer-config", "{}"}).enabled());
  const Args backends{"--kv-transfer-config", R"({"kv_connector":"NixlConnector","kv_role":"kv_both",)"
                                              R"("kv_connector_extra_config":{"backends":["UCX", "GDS"]}})"};
  EXPECT_TRUE(Taken(backends).enabled());
  EXPECT_THAT(Notes(backends), HasSubstr("UCX, GDS not used; KV blocks travel through shared memory"));
}

TEST(KvTransfer, PairsThatMeetByTheRequestId) {
  const KvTransferOptions kv =
      Taken({"--kv-transfer-config",
             R"({"kv_connector":"P2pNcclConnector","kv_role":"kv_producer","kv_ip":"10.0.0.1",)"
             R"("kv_port":"21001","kv_buffer_size":"1e1"})"});
  EXPECT_TRUE(kv.by_request_id());
  EXPECT_EQ(kv.ip, "10.0.0.1");
  EXPECT_EQ(kv.port, 21001);
}

TEST(KvTransfer, MembersAndEnvironment) {
  const std::string start = R"({"kv_connector":"NixlConnector","kv_role":"kv_consumer",)";
  const KvTransferOptions kv = Taken(
      {"--kv-transfer-config",
       start +
           R"("kv_connector_extra_config":{"kv_lease_duration":2.5,"bidirectional":true,"max_bytes_per_second":1e8},)"
           R"("kv_load_failure_policy":"fail","engine_id":"e"})"},
      {{"VLLM_NIXL_SIDE_CHANNEL_HOST", "10.1.1.1"},
       {"VLLM_NIXL_SIDE_CHANNEL_PORT", "6000"},
       {"VLLM_NIXL_ABORT_REQUEST_TIMEOUT", "90"}});
  EXPECT_EQ(kv.lease_s, 2.5);
  EXPECT_TRUE(kv.bidirectional);
  EXPECT_EQ(kv.max_bytes_per_s, 1e8);
  EXPECT_EQ(kv.load_failure_policy, "fail");
  EXPECT_EQ(kv.engine_id, "e");
  EXPECT_EQ(kv.side_channel_host, "10.1.1.1");
  EXPECT_EQ(kv.side_channel_port, 6000);
  EXPECT_EQ(kv.abort_timeout_s, 90);
  EXPECT_EQ(Taken({"--kv-transfer-config", start + R"("kv_lease_duration":7})"}).lease_s, 7);
}

TEST(KvTransfer, RefusalsSayWhatToType) {
  EXPECT_THAT(Refused(R"({"kv_role":"kv_both"})"), HasSubstr("kv_connector is not there; write"));
  EXPECT_THAT(Refused(R"({"kv_connector":"NixlConnector"})"), HasSubstr("Please specify kv_role"));
  EXPECT_THAT(Refused(R"({"kv_connector":"MooncakeConnector","kv_role":"kv_both"})"),
              HasSubstr("MooncakeConnector is not built; use NixlConnector"));
  const std::string start = R"({"kv_connector":"NixlConnector","kv_role":"kv_both",)";
  EXPECT_THAT(Refused(R"({"kv_connector":"NixlConnector","kv_role":"prefill"})"), HasSubstr("kv_role"));
  EXPECT_THAT(Refused(start + R"("kv_load_failure_policy":"retry"})"), HasSubstr("recompute"));
  EXPECT_THAT(Refused(start + R"("kv_conector":1})"), HasSubstr("did you mean 'kv_connector'"));
  EXPECT_THAT(Refused(start + R"("kv_connector_module_path":"a.b"})"), HasSubstr("no Python is run"));
  EXPECT_THAT(Refused(start + R"("kv_port":70000})"), HasSubstr("at most 65535"));
  EXPECT_THAT(Refused(start + R"("kv_lease_duration":0})"), HasSubstr("kv_lease_duration"));
  EXPECT_THAT(Refused(start + R"("kv_connector_extra_config":{"kv_lease_duration":"long"}})"),
              HasSubstr("a number of seconds"));
  EXPECT_THAT(
      Refused(start + R"("kv_lease_duration":3,"kv_connector_extra_config":{"kv_lease_duration":4}})"),
      HasSubstr("one setting"));
  EXPECT_THAT(Refused(start + R"("kv_connector_extra_config":{"backends":[1]}})"),
              HasSubstr("list of names"));
  EXPECT_THAT(Refused(start + R"("kv_connector_extra_config":{"bidirectional":1}})"),
              HasSubstr("true or false"));
  for (const char* rate : {"0", "-1", "1e99", "\"fast\""}) {
    EXPECT_THAT(Refused(start + R"("kv_connector_extra_config":{"max_bytes_per_second":)" + rate + "}}"),
                HasSubstr("must be a number from 1e4 to 1e12"));
  }
}

TEST(KvTransfer, WhatHasNoEffectIsSaid) {
  const std::string notes =
      Notes({"--kv-transfer-config",
             R"({"kv_connector":"NixlConnector","kv_role":"kv_both","kv_buffer_device":"cuda","kv_rank":0,)"
             R"("kv_connector_extra_config":{"num_threads":4}})"});
  EXPECT_THAT(notes, HasSubstr("kv_buffer_device cuda: no effect"));
  EXPECT_THAT(notes, HasSubstr("kv_rank: no effect"));
  EXPECT_THAT(notes, HasSubstr("kv_connector_extra_config.num_threads: no effect"));
}

}  // namespace
}  // namespace cadre::config
