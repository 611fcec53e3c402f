#include "sys/cpu.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "sys/files.h"
#include "sys/memory.h"
#include "sys/threads.h"

namespace cadre::sys {
namespace {

namespace fs = std::filesystem;

// A made-up root folder with a few files of /proc and /sys.
class FakeRoot {
 public:
  FakeRoot() : path_(testing::TempDir() + "cadre_root_" + std::to_string(getpid())) { fs::remove_all(path_); }
  ~FakeRoot() { fs::remove_all(path_); }
  void Write(const std::string& file, const std::string& text) {
    fs::create_directories(fs::path(path_ + file).parent_path());
    std::ofstream(path_ + file) << text;
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

TEST(CpuList, ParsesAndFormats) {
  EXPECT_EQ(*ParseCpuList("0-3,8,10-11\n"), (std::vector<int>{0, 1, 2, 3, 8, 10, 11}));
  EXPECT_EQ(*ParseCpuList(" 5 "), std::vector<int>{5});
  EXPECT_EQ(*ParseCpuList("3,1-2,2"), (std::vector<int>{1, 2, 3}));
  EXPECT_TRUE(ParseCpuList("")->empty());
  for (const char* bad : {"a", "1-", "-1", "3-1", "1,,2", "1,", "70000", "0-99999999999", "1 2", "0x1"}) {
    EXPECT_FALSE(ParseCpuList(bad)) << bad;
  }
  EXPECT_EQ(FormatCpuList({0, 1, 2, 5, 7, 8}), "0-2,5,7-8");
  EXPECT_EQ(FormatCpuList({}), "");
}

TEST(Cpu, ThisMachineHasSome) {
  EXPECT_GE(AllowedCpus().size(), 1u);
  EXPECT_GE(UsableCpus(), 1);
  EXPECT_LE(UsableCpus(), static_cast<int>(AllowedCpus().size()));
  EXPECT_FALSE(OneCpuPerCore(AllowedCpus()).empty());
  EXPECT_FALSE(NumaNodes().empty());
  EXPECT_FALSE(CpuModelName().empty());
}

TEST(Cpu, QuotaIsTheTightestOfTheParents) {
  FakeRoot root;
  root.Write("/proc/self/cgroup", "0::/a/b\n");
  root.Write("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
  EXPECT_EQ(CgroupCpuQuota(root.path()), 0);
  root.Write("/sys/fs/cgroup/a/cpu.max", "150000 100000\n");
  EXPECT_EQ(CgroupCpuQuota(root.path()), 1.5);
  root.Write("/sys/fs/cgroup/a/b/cpu.max", "800000 100000\n");
  EXPECT_EQ(CgroupCpuQuota(root.path()), 1.5);
  // v1, in a container whose group path is not visible under the mount.
  FakeRoot v1;
  v1.Write("/proc/self/cgroup", "4:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n");
  v1.Write("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
  v1.Write("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(CgroupCpuQuota(v1.path()), 0);
  v1.Write("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "250000\n");
  EXPECT_EQ(CgroupCpuQuota(v1.path()), 2.5);
  EXPECT_EQ(CgroupCpuQuota("/nowhere"), 0);
}

TEST(Cpu, CoresNodesAndName) {
  FakeRoot root;
  for (int cpu = 0; cpu < 4; ++cpu) {
    root.Write("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list",
               cpu % 2 == 0 ? "0,2" : "1,3");
  }
  root.Write("/sys/devices/system/node/online", "0-1\n");
  root.Write("/sys/devices/system/node/node0/cpulist", "0,2\n");
  root.Write("/sys/devices/system/node/node0/meminfo", "Node 0 MemTotal:       1024 kB\n");
  root.Write("/sys/devices/system/node/node1/cpulist", "1,3\n");
  root.Write("/proc/cpuinfo", "processor\t: 0\nmodel name\t: Some CPU 9\n");
  EXPECT_EQ(OneCpuPerCore({0, 1, 2, 3}, root.path()), (std::vector<int>{0, 1}));
  EXPECT_EQ(OneCpuPerCore({2, 3}, root.path()), (std::vector<int>{2, 3}));
  const auto nodes = NumaNodes(root.path());
  ASSERT_EQ(nodes.size(), 2u);
  EXPECT_EQ(nodes[0].memory_bytes, 1 << 20);
  EXPECT_EQ(nodes[1].cpus, (std::vector<int>{1, 3}));
  EXPECT_EQ(CpuModelName(root.path()), "Some CPU 9");
  EXPECT_EQ(CpuModelName("/nowhere"), "unknown CPU");
}

TEST(Memory, LimitsOfBothHierarchies) {
  const auto here = ReadMemoryInfo();
  ASSERT_TRUE(here);
  EXPECT_GT(here->total(), 0);
  EXPECT_LE(here->available(), here->host_total);
  EXPECT_FALSE(ReadMemoryInfo("/nowhere"));

  FakeRoot root;
  root.Write("/proc/meminfo", "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:   600 kB\n");
  EXPECT_EQ(ReadMemoryInfo(root.path())->total(), 1000 * 1024);
  EXPECT_EQ(ReadMemoryInfo(root.path())->limited_by, "the host");
  root.Write("/proc/self/cgroup", "0::/a/b\n");
  root.Write("/sys/fs/cgroup/a/memory.max", "512000\n");
  root.Write("/sys/fs/cgroup/a/memory.current", "300000\n");
  root.Write("/sys/fs/cgroup/a/memory.stat", "anon 5\nactive_file 7\ninactive_file 100000\n");
  root.Write("/sys/fs/cgroup/a/b/memory.max", "max\n");
  const auto v2 = ReadMemoryInfo(root.path());
  EXPECT_EQ(v2->total(), 512000);
  EXPECT_EQ(v2->available(), 312000);
  EXPECT_EQ(v2->limited_by, root.path() + "/sys/fs/cgroup/a/memory.max");

  FakeRoot v1;
  v1.Write("/proc/meminfo", "MemTotal:  1000 kB\nMemAvailable:   600 kB\n");
  v1.Write("/proc/self/cgroup", "7:memory:/x\n0::/x\n");
  v1.Write("/sys/fs/cgroup/memory/x/memory.limit_in_bytes", "9223372036854771712\n");
  EXPECT_EQ(ReadMemoryInfo(v1.path())->cgroup_limit, 0);
  v1.Write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "2048\n");
  v1.Write("/sys/fs/cgroup/memory/memory.usage_in_bytes", "4096\n");
  EXPECT_EQ(ReadMemoryInfo(v1.path())->total(), 2048);
  EXPECT_EQ(ReadMemoryInfo(v1.path())->available(), 0);
}

TEST(Memory, RegionsAreZeroAlignedAndMovable) {
  ThreadPool pool({.num_threads = 2, .cpus = {}, .spin = false});
  for (const size_t bytes : {size_t{1}, size_t{5000}, (size_t{2} << 20) + 5}) {
    auto region = AllocateRegion(bytes, {.pool = &pool});
    ASSERT_TRUE(region);
    ASSERT_GE(region->bytes(), bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(region->data()) % (bytes > (2 << 20) ? 2 << 20 : 4096), 0u);
    for (const std::byte b : region->span().first(bytes)) ASSERT_EQ(b, std::byte{0});
    Region other = std::move(*region);
    EXPECT_FALSE(*region);
    other.data()[bytes - 1] = std::byte{1};
  }
  EXPECT_FALSE(*AllocateRegion(0));
  const auto too_much = AllocateRegion(SIZE_MAX / 8);
  ASSERT_FALSE(too_much);
  EXPECT_EQ(too_much.error().code, Code::kResourceExhausted);
  EXPECT_EQ(FormatBytes(17), "17 bytes");
  EXPECT_EQ(FormatBytes(17 << 10), "17 KiB");
  EXPECT_EQ(FormatBytes(int64_t{3} << 29), "1.5 GiB");
}

TEST(Files, ReadsAndRefuses) {
  FakeRoot root;
  root.Write("/x/b", std::string(100000, 'y'));
  root.Write("/x/a", "");
  EXPECT_EQ(ReadFile(root.path() + "/x/b", 100000)->size(), 100000u);
  EXPECT_EQ(ReadFile(root.path() + "/x/a", 0), "");
  EXPECT_EQ(ReadFile(root.path() + "/x/b", 99999).error().code, Code::kResourceExhausted);
  EXPECT_EQ(ReadFile(root.path() + "/x/c", 1).error().code, Code::kNotFound);
  EXPECT_EQ(ReadFile(root.path() + "/x", 1).error().code, Code::kUnavailable);
  EXPECT_EQ(*ListFolder(root.path() + "/x"), (std::vector<std::string>{"a", "b"}));
  EXPECT_FALSE(ListFolder(root.path() + "/y"));
  EXPECT_TRUE(IsFolder(root.path()) && FileExists(root.path() + "/x/a") && !FileExists(root.path() + "/z"));
}

}  // namespace
}  // namespace cadre::sys
