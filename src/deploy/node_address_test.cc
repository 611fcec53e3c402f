#include "deploy/node_address.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace cadre::deploy {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const std::vector<sys::NetworkInterface> kInterfaces = {{"lo", {"127.0.0.1"}, true},
                                                        {"eth0", {"10.0.0.1", "fd00::1"}, false},
                                                        {"eth1", {"10.0.1.1"}, false},
                                                        {"docker0", {"172.17.0.1"}, false},
                                                        {"ib0", {}, false}};

std::vector<std::string> Of(config::ParallelOptions parallel) {
  auto addresses = NodeAddresses(parallel, kInterfaces);
  EXPECT_TRUE(addresses.has_value()) << addresses.error().message;
  return addresses.value_or(std::vector<std::string>());
}

TEST(NodeAddresses, NamesAreNccls) {
  EXPECT_TRUE(Of({}).empty());
  EXPECT_THAT(Of({.nccl_ifname = "eth"}), ElementsAre("10.0.0.1", "10.0.1.1"));
  EXPECT_THAT(Of({.nccl_ifname = "=eth1"}), ElementsAre("10.0.1.1"));
  EXPECT_THAT(Of({.nccl_ifname = "^docker,eth0"}), ElementsAre("10.0.1.1"));
  EXPECT_THAT(Of({.nccl_ifname = "eth1,docker"}), ElementsAre("10.0.1.1", "172.17.0.1"));
}

TEST(NodeAddresses, Precedence) {
  EXPECT_THAT(Of({.host_ip = "172.17.0.1", .nccl_ifname = "eth0", .gloo_ifname = "lo"}),
              ElementsAre("172.17.0.1"));
  EXPECT_THAT(Of({.nccl_ifname = "eth0", .gloo_ifname = "eth1"}), ElementsAre("10.0.0.1"));
  EXPECT_THAT(Of({.gloo_ifname = "eth1", .tp_ifname = "eth0"}), ElementsAre("10.0.1.1"));
}

TEST(NodeAddresses, WhatIsNotThereIsRefusedWithWhatIs) {
  const auto missing = NodeAddresses({.gloo_ifname = "enp9"}, kInterfaces);
  ASSERT_FALSE(missing.has_value());
  EXPECT_EQ(missing.error().param, "GLOO_SOCKET_IFNAME");
  EXPECT_THAT(missing.error().message, HasSubstr("lo (127.0.0.1), eth0 (10.0.0.1)"));
  EXPECT_FALSE(NodeAddresses({.nccl_ifname = "=eth"}, kInterfaces).has_value());
  EXPECT_FALSE(NodeAddresses({.nccl_ifname = "ib0"}, kInterfaces).has_value());
  EXPECT_FALSE(NodeAddresses({.host_ip = "10.9.9.9"}, kInterfaces).has_value());
}

TEST(ListInterfaces, HasTheLoopback) {
  const auto interfaces = sys::ListInterfaces();
  ASSERT_TRUE(interfaces.has_value());
  EXPECT_THAT(*interfaces, testing::Contains(testing::Field(&sys::NetworkInterface::loopback, true)));
}

}  // namespace
}  // namespace cadre::deploy
