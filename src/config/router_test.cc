// The words of `cadre router`: vLLM's router, prime-rl's proxy and vLLM's toy proxy, as their users type
// them.
#include "config/router.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config/parse.h"

namespace cadre::config {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Args = std::vector<std::string>;

RouterOptions Router(const Args& args, const Environment& env = {}) {
  auto parsed = ParseRouter(args, env);
  EXPECT_TRUE(parsed) << parsed.error().message;
  return parsed ? parsed->options : RouterOptions();
}

std::string RouterError(const Args& args) {
  auto parsed = ParseRouter(args, {});
  EXPECT_FALSE(parsed);
  return parsed ? "" : parsed.error().message;
}

TEST(Router, DefaultsOfTheTableAreThoseOfTheStruct) {
  RouterOptions expected;
  expected.worker_urls = {"http://w:1"};
  EXPECT_EQ(Router({"http://w:1"}), expected);
}

TEST(Router, PlainWorkersInEverySpelling) {
  const auto two = ElementsAre("http://a:1", "http://b:2");
  EXPECT_THAT(Router({"http://a:1", "http://b:2"}).worker_urls, two);
  EXPECT_THAT(Router({"http://a:1,http://b:2"}).worker_urls, two);
  EXPECT_THAT(Router({"--worker-urls", "http://a:1", "http://b:2", "--policy", "round_robin"}).worker_urls,
              two);
  EXPECT_THAT(Router({"--worker_urls=http://a:1, http://b:2"}).worker_urls, two);
  EXPECT_FALSE(Router({"http://a:1"}).pairs);
}

TEST(Router, PairsInEverySpelling) {
  for (const Args& args :
       {Args{"--prefill", "http://p:1,http://q:2", "--decode", "http://d:3"},
        Args{"--prefill", "http://p:1", "--prefill", "http://q:2", "--decode", "http://d:3"},
        Args{"--vllm-pd-disaggregation", "--prefill", "http://p:1", "8998", "--prefill", "http://q:2", "none",
             "--decode", "http://d:3"},
        Args{"--prefill-urls", "http://p:1,http://q:2", "--decode-urls", "http://d:3"},
        Args{"--prefiller-hosts", "p", "q", "--prefiller-ports", "1", "2", "--decoder-hosts", "d",
             "--decoder-ports", "3"}}) {
    const RouterOptions options = Router(args);
    EXPECT_TRUE(options.pairs);
    EXPECT_THAT(options.prefill, ElementsAre("http://p:1", "http://q:2"));
    EXPECT_THAT(options.decode, ElementsAre("http://d:3"));
    EXPECT_TRUE(options.worker_urls.empty());
  }
}

TEST(Router, PrimeRlsProxyLine) {
  const RouterOptions options = Router({"--host",
                                        "127.0.0.1",
                                        "--port",
                                        "8000",
                                        "--prefill-urls",
                                        "http://p:1",
                                        "--decode-urls",
                                        "http://d:3",
                                        "--prefill-kv-addrs",
                                        "p:14579",
                                        "--decode-kv-addrs",
                                        "d:14580",
                                        "--timeout",
                                        "21600",
                                        "--max-generate-attempts",
                                        "2",
                                        "--health-check-interval",
                                        "5",
                                        "--health-check-timeout",
                                        "5",
                                        "--health-check-failure-threshold",
                                        "2"});
  EXPECT_EQ(options.port, 8000);
  EXPECT_EQ(options.request_timeout_s, 21600);
  EXPECT_EQ(options.retry_max_retries, 2);
  EXPECT_EQ(options.health_failure_threshold, 2);
  EXPECT_THAT(options.decode_kv_addrs, ElementsAre("d:14580"));
}

TEST(Router, VllmRoutersLine) {
  const RouterOptions options = Router({"--worker-urls",
                                        "http://a:1",
                                        "--policy",
                                        "consistent_hash",
                                        "--intra-node-data-parallel-size",
                                        "4",
                                        "--cache-threshold",
                                        "0.5",
                                        "--balance-abs-threshold",
                                        "32",
                                        "--balance-rel-threshold",
                                        "1.1",
                                        "--eviction-interval-secs",
                                        "60",
                                        "--max-tree-size",
                                        "1000",
                                        "--request-id-headers",
                                        "x-a",
                                        "x-b",
                                        "--retry-max-retries",
                                        "3",
                                        "--cb-failure-threshold",
                                        "5",
                                        "--disable-circuit-breaker",
                                        "--prometheus-port",
                                        "29000",
                                        "--worker-startup-timeout-secs",
                                        "300",
                                        "--disable-retries"});
  EXPECT_EQ(options.policy, "consistent_hash");
  EXPECT_EQ(options.intra_node_data_parallel_size, 4);
  EXPECT_EQ(options.retry_max_retries, 1);
  EXPECT_EQ(options.prometheus_port, 29000);
  EXPECT_TRUE(options.disable_circuit_breaker);
  EXPECT_THAT(options.request_id_headers, ElementsAre("x-a", "x-b"));
}

TEST(Router, HowPairsAreAskedAndHowPromptsAreCounted) {
  const RouterOptions options =
      Router({"--prefill", "http://p:1", "--decode", "http://d:1", "--kv-transfer-mode", "push",
              "--prefill-threshold", "64", "--tokenizer-path", "/models/m", "--chat-template", "/t.jinja"},
             {{"HF_HOME", "/hf"}});
  EXPECT_EQ(options.kv_transfer_mode, "push");
  EXPECT_EQ(options.prefill_threshold, 64);
  EXPECT_EQ(options.tokenizer, "/models/m");
  EXPECT_EQ(options.chat_template, "/t.jinja");
  EXPECT_EQ(options.hub_cache, "/hf/hub");
  EXPECT_THAT(RouterError({"http://a:1", "--kv-transfer-mode", "shove"}), HasSubstr("--kv-transfer-mode"));
  EXPECT_THAT(RouterError({"http://a:1", "--prefill-threshold", "64"}), HasSubstr("is for pairs"));
  EXPECT_THAT(RouterError({"http://a:1", "--chat-template", "t"}), HasSubstr("--tokenizer"));
}

TEST(Router, TheKeyComesFromTheEnvironment) {
  EXPECT_EQ(Router({"http://a:1"}, {{"VLLM_API_KEY", "k"}}).api_key, "k");
  EXPECT_EQ(Router({"http://a:1", "--api-key", "j"}, {{"VLLM_API_KEY", "k"}}).api_key, "j");
}

TEST(Router, WhatMakesNoSenseIsRefusedByName) {
  EXPECT_THAT(RouterError({}), HasSubstr("no workers"));
  EXPECT_THAT(RouterError({"--prefill", "http://p:1"}), HasSubstr("both roles"));
  EXPECT_THAT(RouterError({"--vllm-pd-disaggregation", "http://a:1"}),
              HasSubstr("neither prefill nor decode"));
  EXPECT_THAT(RouterError({"--prefill", "http://p:1", "--decode", "http://d:1", "http://a:1"}),
              HasSubstr("http://a:1"));
  EXPECT_THAT(RouterError({"--prefiller-hosts", "a", "b", "--prefiller-ports", "1"}), HasSubstr("2 hosts"));
  EXPECT_THAT(RouterError({"--prefill", "http://p:1", "--decode", "http://d:1", "--prefill-kv-addrs", "p:2"}),
              HasSubstr("--decode-kv-addrs 0 for 1"));
  EXPECT_THAT(RouterError({"http://a:1", "--policy", "best"}), HasSubstr("--policy"));
  EXPECT_THAT(RouterError({"http://a:1", "--service-discovery"}), HasSubstr("headless"));
  EXPECT_THAT(RouterError({"http://a:1", "--kv-connector", "mooncake"}), HasSubstr("kv-connector"));
  EXPECT_THAT(RouterError({"http://a:1", "--polcy", "random"}), HasSubstr("--policy"));
}

}  // namespace
}  // namespace cadre::config
