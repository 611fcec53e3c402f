// Memory of another process read over UCX; the slow twin is memcpy.
#include "fabric/remote_memory.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <random>
#include <thread>

#include "fabric/host_link.h"
#include "fabric/memory_owner_testing.h"

namespace cadre::fabric {
namespace {

using namespace std::chrono_literals;

// Without RDMA UCX serves direct reads with the owner's thread, which will do as long as nobody dies.
RemoteMemoryOptions Here(int num_lanes = 1, bool direct = false) {
  return {.addresses = {"127.0.0.1"}, .num_lanes = num_lanes, .direct = direct};
}

std::vector<std::byte> Pattern(size_t bytes, uint32_t seed) {
  std::vector<std::byte> data(bytes);
  std::mt19937 random(seed);
  for (std::byte& b : data) b = static_cast<std::byte>(random());
  return data;
}

size_t OpenFiles(int pid) {
  const std::filesystem::directory_iterator files("/proc/" + std::to_string(pid) + "/fd");
  return static_cast<size_t>(std::distance(begin(files), end(files)));
}

ReadLimits Within(Duration time) {
  return {.deadline = Now() + time};
}

// Fills in for a reader in another process: reads a region again and again until it is killed. Made before
// this process uses UCX, which does not bear being forked.
class ReaderProcess {
 public:
  ReaderProcess() : sockets_(*sys::SocketPair()), pid_(fork()) {
    if (pid_ == 0) {
      Run(sockets_.second.get());
      _exit(1);
    }
  }
  ~ReaderProcess() {
    Kill();
    waitpid(pid_, nullptr, 0);
  }
  void Begin(const std::string& port, const MemoryRegion& region) {
    test::Tell(sockets_.first.get(), port);
    test::Tell(sockets_.first.get(), region.key);
    test::Tell(sockets_.first.get(), std::to_string(region.bytes));
  }
  bool HasRead() { return test::Hear(sockets_.first.get(), Now() + 20s) == "read"; }
  void Kill() { kill(pid_, SIGKILL); }

 private:
  static void Run(int orders) {
    const auto reader = MemoryReader::Create(Here());
    if (!reader) return;
    const std::string port = test::Hear(orders).value_or("");
    MemoryRegion region{.key = test::Hear(orders).value_or("")};
    region.bytes = std::stoull(test::Hear(orders).value_or("0"));
    (*reader)->Attach("127.0.0.1", port, {region});
    std::vector<std::byte> to(region.bytes);
    while ((*reader)->Read(0, 0, to, Within(20s)) && test::Tell(orders, "read")) {
    }
  }

  std::pair<sys::Fd, sys::Fd> sockets_;
  pid_t pid_;
};

#ifdef __SANITIZE_THREAD__
std::unique_ptr<test::OwnerProcess> StartOwner(std::string& why, bool = false,
                                               std::vector<std::pair<std::string, std::string>> = {}) {
  why = "UCX is not compiled for ThreadSanitizer";
  return nullptr;
}
#else
std::unique_ptr<test::OwnerProcess> StartOwner(std::string& why, bool direct = false,
                                               std::vector<std::pair<std::string, std::string>> env = {}) {
  return test::OwnerProcess::Start(CADRE_MEMORY_OWNER, direct, why, std::move(env));
}
#endif

// First of all (gtest runs suites of this name first): nothing has used UCX yet.
TEST(RemoteMemoryDeathTest, ProcessesThatStopAndDie) {
  std::string why;
  const auto owner = StartOwner(why);
  if (owner == nullptr) GTEST_SKIP() << why;
  const auto wanted = Pattern(3 << 20, 1);
  const MemoryRegion region = owner->Map(wanted);
  // Readers that die while they connect, or with an answer on its way, leave the owner as it is.
  for (int i = 0; i < 40; ++i) {
    ReaderProcess dying;
    dying.Begin(owner->port(), region);
    std::this_thread::sleep_for(2ms + i * 500us);
  }
  ASSERT_TRUE(owner->runs());
  ReaderProcess reading;
  reading.Begin(owner->port(), region);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(reading.HasRead());
  reading.Kill();

  std::vector<std::byte> to(wanted.size());
  const auto reader = MemoryReader::Create(Here());
  ASSERT_TRUE(reader) << reader.error().message;
  (*reader)->Attach("127.0.0.1", owner->port(), {region});
  const Status read = (*reader)->Read(0, 0, to, Within(20s));
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(to, wanted);

  // A stopped owner: the deadline, or whatever else ends the read; then nothing is written any more.
  for (const bool by_check : {false, true}) {
    owner->Stop();
    std::ranges::fill(to, std::byte{9});
    const TimePoint start = Now();
    ReadLimits limits = Within(by_check ? 20s : 300ms);
    if (by_check)
      limits.check = [&] { return Now() - start < 100ms ? Status() : Fail(Code::kCancelled, "no"); };
    const Status late = (*reader)->Read(0, 0, to, limits);
    ASSERT_FALSE(late);
    EXPECT_EQ(late.error().code, by_check ? Code::kCancelled : Code::kDeadlineExceeded);
    EXPECT_LT(Now() - start, 3s);
    const auto left = to;
    owner->Continue();
    EXPECT_FALSE((*reader)->Read(0, 0, to, Within(20s)));  // broken
    std::this_thread::sleep_for(50ms);
    EXPECT_EQ(to, left);
    (*reader)->Attach("127.0.0.1", owner->port(), {region});  // and all is well again
    const Status again = (*reader)->Read(0, 0, to, Within(20s));
    ASSERT_TRUE(again) << again.error().message;
    EXPECT_EQ(to, wanted);
  }

  owner->Kill();
  const TimePoint start = Now();
  while (true) {  // some of it may still come
    const Status dead = (*reader)->Read(0, 0, to, Within(20s));
    if (dead) continue;
    EXPECT_EQ(dead.error().code, Code::kUnavailable) << dead.error().message;
    break;
  }
  EXPECT_LT(Now() - start, 5s);
  (*reader)->Attach("127.0.0.1", owner->port(), {region});
  EXPECT_FALSE((*reader)->Read(0, 0, to, Within(5s)));
}

// What the environment says to UCX comes before what Cadre chooses.
TEST(RemoteMemoryEnvironment, ChoosesDevices) {
  std::string why;
  if (StartOwner(why) == nullptr) GTEST_SKIP() << why;
  if (HasRdma()) GTEST_SKIP() << "with RDMA UCX has devices of other names";
  EXPECT_EQ(StartOwner(why, false, {{"UCX_NET_DEVICES", "nosuch0"}, {"UCX_LOG_LEVEL", "fatal"}}), nullptr);
  EXPECT_EQ(why.find("UCX cannot start"), 0u) << why;
}

// UCX does not bear owner and readers in one process: whoever comes second is refused, by name.
TEST(RemoteMemoryRoles, OneProcessHasOneOfThem) {
  std::string why;
  if (StartOwner(why) == nullptr) GTEST_SKIP() << why;
  {
    const auto owner = MemoryOwner::Create(Here());
    ASSERT_TRUE(owner && MemoryOwner::Create(Here()));
    const auto reader = MemoryReader::Create(Here());
    ASSERT_FALSE(reader);
    EXPECT_EQ(reader.error().code, Code::kUnsupported);
    EXPECT_NE(reader.error().message.find("one process"), std::string::npos) << reader.error().message;
  }
  const auto reader = MemoryReader::Create(Here());
  ASSERT_TRUE(reader && MemoryReader::Create(Here()));
  EXPECT_FALSE(MemoryOwner::Create(Here()));
}

class RemoteMemory : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    std::string why;
    owner_ = StartOwner(why, direct());
    if (owner_ == nullptr) GTEST_SKIP() << why;
  }
  bool direct() const { return GetParam(); }

  std::unique_ptr<test::OwnerProcess> owner_;
};
INSTANTIATE_TEST_SUITE_P(Ways, RemoteMemory, testing::Bool(),
                         [](const auto& way) { return way.param ? "direct" : "asked"; });

TEST_P(RemoteMemory, AnyPieceOfAnyRegionByAnyThread) {
  std::vector<std::vector<std::byte>> data;
  std::vector<MemoryRegion> regions;
  for (const size_t bytes : {1, 100, 8192, 70001, 3 << 20}) {
    data.push_back(Pattern(bytes, static_cast<uint32_t>(bytes)));
    regions.push_back(owner_->Map(data.back()));
    ASSERT_NE(regions.back().key, "");
  }
  EXPECT_EQ(owner_->Map({}).key, "");
  // A reader without RDMA asks whatever the owner has.
  for (const auto& [lanes, reads_direct] :
       {std::pair(1, direct()), std::pair(3, direct()), std::pair(2, false)}) {
    const auto reader = MemoryReader::Create(Here(lanes, reads_direct));
    ASSERT_TRUE(reader) << reader.error().message;
    (*reader)->Attach("127.0.0.1", owner_->port(), regions);
    const auto read_some = [&](uint32_t seed) {
      std::mt19937 random(seed);
      for (int i = 0; i < 60; ++i) {
        const size_t region = random() % regions.size(), size = data[region].size();
        const size_t offset = random() % size;
        const size_t bytes =
            i % 5 == 0 ? size - offset : random() % (std::min<size_t>(size - offset, 5000) + 1);
        std::vector<std::byte> to(bytes + 16, std::byte{77});
        const Status read = (*reader)->Read(region, offset, std::span(to).subspan(8, bytes), Within(20s));
        ASSERT_TRUE(read) << read.error().message;
        ASSERT_TRUE(
            std::equal(to.begin() + 8, to.end() - 8, data[region].begin() + static_cast<ptrdiff_t>(offset)));
        for (size_t k = 0; k < 8; ++k)
          ASSERT_TRUE(to[k] == std::byte{77} && to[bytes + 8 + k] == std::byte{77});
      }
    };
    std::vector<std::thread> threads;
    for (uint32_t t = 0; t < 4; ++t) threads.emplace_back(read_some, t);
    for (std::thread& thread : threads) thread.join();
  }
}

TEST_P(RemoteMemory, AnOwnerThatEndsEndsItsReaders) {
  const MemoryRegion region = owner_->Map(Pattern(5000, 1));
  const auto reader = MemoryReader::Create(Here(1, direct()));
  (*reader)->Attach("127.0.0.1", owner_->port(), {region});
  std::vector<std::byte> to(5000);
  ASSERT_TRUE((*reader)->Read(0, 0, to, Within(20s)));
  owner_->End();  // what it mapped stays behind and does no harm
  const TimePoint start = Now();
  const Status read = (*reader)->Read(0, 0, to, Within(10s));
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code, Code::kUnavailable) << read.error().message;
  EXPECT_LT(Now() - start, 5s);
}

// Whoever asks gets what is mapped and nothing else, whatever it says about where that lies.
TEST(RemoteMemoryAsked, OnlyWhatIsMappedIsRead) {
  std::string why;
  const auto owner = StartOwner(why);
  if (owner == nullptr) GTEST_SKIP() << why;
  const auto data = Pattern(1000, 1);
  const MemoryRegion good = owner->Map(data);
  const auto reader = MemoryReader::Create(Here());
  std::vector<std::byte> to(2000);
  const auto read = [&](MemoryRegion region, uint64_t offset, size_t bytes) {
    (*reader)->Attach("127.0.0.1", owner->port(), {std::move(region)});
    return (*reader)->Read(0, offset, std::span(to).first(bytes), Within(20s));
  };
  EXPECT_TRUE(read(good, 0, 1000));
  EXPECT_TRUE(std::equal(data.begin(), data.end(), to.begin()));
  MemoryRegion bad = good;
  bad.bytes = 2000;
  std::ranges::fill(to, std::byte{5});
  for (const auto& [offset, bytes] : {std::pair(0, 1001), std::pair(1, 1000), std::pair(1500, 10)}) {
    const Status status = read(bad, static_cast<uint64_t>(offset), static_cast<size_t>(bytes));
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code, Code::kUnavailable);
    EXPECT_NE(status.error().message.find("mapped"), std::string::npos) << status.error().message;
  }
  bad.bytes = ~uint64_t{0};
  EXPECT_FALSE(read(bad, ~uint64_t{0} - 600, 600));
  bad = good;
  bad.key[0] = static_cast<char>(bad.key[0] ^ 1);
  EXPECT_FALSE(read(bad, 0, 10));
  bad.key = "short";
  EXPECT_FALSE(read(bad, 0, 10));
  EXPECT_EQ(std::ranges::count(to, std::byte{5}), 2000);
  EXPECT_TRUE(read(good, 999, 1));
  owner->Unmap(good);
  EXPECT_FALSE(read(good, 999, 1));
}

// Keys and addresses as a hostile owner might tell them: an error, or what is there.
TEST_P(RemoteMemory, WildKeysAndAddressesAreErrors) {
  const auto data = Pattern(5000, 1);
  const MemoryRegion good = owner_->Map(data);
  const auto reader = MemoryReader::Create(Here(1, direct()));
  std::vector<std::byte> to(100);
  int num_failed = 0;
  for (uint32_t seed = 0; seed < 60; ++seed) {
    std::mt19937 random(seed);
    MemoryRegion region = good;
    for (int i = 0; i < 3; ++i) region.key[random() % region.key.size()] = static_cast<char>(random());
    if (seed % 4 == 0) {
      for (char& c : region.key) c = static_cast<char>(random());
    }
    if (seed % 8 < 4) region.key.resize(random() % 200 + 1);
    (*reader)->Attach("127.0.0.1", owner_->port(), {region});
    const Status read = (*reader)->Read(0, 0, to, Within(20s));
    num_failed += !read;
    EXPECT_TRUE(!read || std::equal(to.begin(), to.end(), data.begin())) << seed;
  }
  EXPECT_GT(num_failed, direct() ? 0 : 10);  // TCP wants no key
  const std::pair<std::string, std::string> nowhere[] = {
      {"", ""},  {"127.0.0.1", ""},  {"127.0.0.1", "70000"}, {"127.0.0.1", "-1"}, {"127.0.0.1", "8o"},
      {"", "9"}, {"localhost", "9"}, {"127.0.0.1", "0"},     {"127.0.0.1", "1"}};
  for (const auto& [host, port] : nowhere) {
    (*reader)->Attach(host, port, {good});
    EXPECT_FALSE((*reader)->Read(0, 0, to, Within(20s))) << host << " " << port;
  }
  (*reader)->Attach("127.0.0.1", owner_->port(), {good});
  EXPECT_TRUE((*reader)->Read(0, 0, to, Within(20s)));
}

// UCX ends an owner whose connections go while they are made.
TEST_P(RemoteMemory, ReadsGivenUpWhileConnectingHarmNobody) {
  const auto data = Pattern(100, 1);
  const MemoryRegion region = owner_->Map(data);
  const auto reader = MemoryReader::Create(Here(1, direct()));
  std::vector<std::byte> to(data.size());
  for (int round = 0; round < 200; ++round) {
    (*reader)->Attach("127.0.0.1", owner_->port(), {region});
    const Status read = (*reader)->Read(0, 0, to, Within(round % 100 * 20us));
    EXPECT_TRUE(read || read.error().code == Code::kDeadlineExceeded) << read.error().message;
  }
  (*reader)->Attach("127.0.0.1", owner_->port(), {region});
  const Status read = (*reader)->Read(0, 0, to, Within(20s));
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(to, data);
}

// Neither side keeps anything of connections that have gone, nor of memory that is mapped no more.
TEST_P(RemoteMemory, AHundredRoundsLeaveNothingBehind) {
  const auto reader = MemoryReader::Create(Here(2, direct()));
  const auto data = Pattern(100'000, 1);
  std::vector<std::byte> to(data.size());
  const auto open_files = [&] { return std::pair(OpenFiles(getpid()), OpenFiles(owner_->pid())); };
  std::pair<size_t, size_t> early;
  for (int round = 0; round < 100; ++round) {
    const MemoryRegion region = owner_->Map(data);
    (*reader)->Attach("127.0.0.1", owner_->port(), {region});
    std::ranges::fill(to, std::byte{0});
    const Status read = (*reader)->Read(0, 0, to, Within(20s));
    ASSERT_TRUE(read) << read.error().message;
    ASSERT_EQ(to, data);
    (*reader)->Detach();
    owner_->Unmap(region);
    if (round == 4) early = open_files();
  }
  const auto grown = [&] {
    const auto now = open_files();
    return now.first > early.first || now.second > early.second;
  };
  const TimePoint until = Now() + 5s;
  while (grown() && Now() < until) std::this_thread::sleep_for(5ms);
  EXPECT_FALSE(grown());
}

}  // namespace
}  // namespace cadre::fabric
