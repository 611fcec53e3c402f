#include "sys/devices.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "sys/limits.h"

namespace cadre::sys {
namespace {

namespace fs = std::filesystem;

// A root folder made from a list of "path = contents" (with \n) and "path -> target".
class TreeRoot {
 public:
  explicit TreeRoot(const std::string& name)
      : path_(testing::TempDir() + "cadre_tree_" + name + std::to_string(getpid())) {
    fs::remove_all(path_);
    std::ifstream list(std::string(CADRE_SOURCE_DIR) + "/src/sys/testdata/" + name + ".tree");
    EXPECT_TRUE(list) << name;
    std::string line;
    while (std::getline(list, line)) {
      if (line.starts_with('#')) continue;
      const size_t link = line.find(" -> "), file = line.find(" = ");
      const std::string at = path_ + line.substr(0, std::min(link, file));
      fs::create_directories(fs::path(at).parent_path());
      if (link < file) {
        fs::create_symlink(line.substr(link + 4), at);
      } else {
        std::ofstream out(at);
        for (size_t i = file + 3; i < line.size(); ++i) {
          const bool end = line[i] == '\\' && i + 1 < line.size() && line[i + 1] == 'n';
          out << (end ? '\n' : line[i]);
          i += end ? 1 : 0;
        }
      }
    }
  }
  ~TreeRoot() { fs::remove_all(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

TEST(Devices, AVirtualMachineHasOneInterfaceAndNoAccelerator) {
  const TreeRoot root("virtual_machine");
  const auto devices = ListNetworkDevices(root.path());
  ASSERT_EQ(devices.size(), 2u);  // bonding_masters is a file, not an interface
  EXPECT_EQ(devices[0].name, "eth0");
  EXPECT_EQ(devices[0].driver, "virtio_net");
  EXPECT_EQ(devices[0].state, "up");
  EXPECT_EQ(devices[0].speed_mbps, 0);  // the driver says -1
  EXPECT_EQ(devices[0].mtu, 1400);
  EXPECT_FALSE(devices[0].loopback);
  EXPECT_EQ(devices[0].place.chain, (std::vector<std::string>{"pci0000:00", "0000:00:03.0"}));
  EXPECT_TRUE(devices[1].loopback);
  EXPECT_TRUE(devices[1].place.chain.empty());
  EXPECT_TRUE(ListRdmaDevices(root.path()).empty());
  EXPECT_TRUE(ListGpus(root.path()).empty());

  const HugePageInfo pages = ReadHugePages(root.path());
  EXPECT_EQ(pages.transparent, "madvise");
  EXPECT_EQ(pages.shared, "never");
  EXPECT_EQ(pages.reserved, 0);
  EXPECT_EQ(CpuFlags(root.path()),
            (std::vector<std::string>{"fpu", "avx2", "fma", "avx512f", "avx512_bf16"}));
  EXPECT_EQ(ReadLocalPorts(root.path()).first, 32768);
  EXPECT_EQ(ReadLocalPorts(root.path()).last, 60999);
}

TEST(Devices, RdmaAndGpusWithTheirPlaces) {
  const TreeRoot root("two_nodes");
  const auto rdma = ListRdmaDevices(root.path());
  ASSERT_EQ(rdma.size(), 3u);
  EXPECT_EQ(rdma[0].name, "mlx5_0");
  EXPECT_EQ(rdma[0].driver, "mlx5_core");
  ASSERT_EQ(rdma[0].ports.size(), 1u);
  EXPECT_EQ(rdma[0].ports[0].state, "ACTIVE");
  EXPECT_EQ(rdma[0].ports[0].link_layer, "InfiniBand");
  EXPECT_EQ(rdma[0].ports[0].gbit, 400);
  EXPECT_EQ(rdma[0].interfaces, std::vector<std::string>{"ib0"});
  EXPECT_TRUE(rdma[0].active());
  EXPECT_FALSE(rdma[1].active());
  EXPECT_TRUE(rdma[2].efa());
  EXPECT_TRUE(rdma[2].interfaces.empty());

  const auto gpus = ListGpus(root.path());
  ASSERT_EQ(gpus.size(), 3u);  // the console's graphics (0x1a03) is none
  EXPECT_EQ(gpus[0].vendor, "NVIDIA");
  EXPECT_EQ(gpus[0].driver, "nvidia");
  EXPECT_EQ(gpus[0].device, "0x2330");
  EXPECT_EQ(gpus[2].vendor, "AMD");
  EXPECT_EQ(gpus[2].driver, "");
  EXPECT_EQ(gpus[2].place.numa_node, 1);

  const auto far = [&](size_t gpu, const PciPlace& place) {
    return std::string(PciDistanceName(DistanceOf(gpus[gpu].place, place)));
  };
  EXPECT_EQ(far(0, gpus[0].place), "X");
  EXPECT_EQ(far(0, rdma[0].place), "PXB");  // two ports of one switch
  EXPECT_EQ(far(0, gpus[1].place), "PHB");
  EXPECT_EQ(far(0, rdma[2].place), "NODE");
  EXPECT_EQ(far(0, gpus[2].place), "SYS");
  EXPECT_EQ(far(0, {}), "SYS");
  const auto net = ListNetworkDevices(root.path());
  ASSERT_EQ(net.size(), 3u);
  EXPECT_EQ(net[0].name, "eth0");
  EXPECT_EQ(net[0].speed_mbps, 100000);
  EXPECT_EQ(far(2, net[0].place), "PIX");  // functions behind one bridge
  EXPECT_EQ(net[1].state, "down");
}

TEST(Devices, NothingThereIsNothingFound) {
  EXPECT_TRUE(ListNetworkDevices("/no/such/root").empty());
  EXPECT_TRUE(ListRdmaDevices("/no/such/root").empty());
  EXPECT_TRUE(ListGpus("/no/such/root").empty());
  EXPECT_EQ(ReadHugePages("/no/such/root").transparent, "");
  EXPECT_TRUE(CpuFlags("/no/such/root").empty());
  EXPECT_EQ(ReadShm("/no/such/folder").bytes, 0);
}

TEST(Limits, OfThisProcessAreRead) {
  const UserLimits limits = ReadUserLimits();
  EXPECT_TRUE(limits.open_files == -1 || limits.open_files > 0);
  EXPECT_FALSE(ListNetworkDevices().empty());  // lo at least
}

}  // namespace
}  // namespace cadre::sys
