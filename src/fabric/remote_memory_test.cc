// Memory of another process read over UCX; the slow twin is memcpy.
#include "fabric/remote_memory.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <random>
#include <thread>

#include "fabric/host_link.h"

namespace cadre::fabric {
namespace {

using namespace std::chrono_literals;

// Without RDMA UCX serves direct reads with the owner's thread, which will do as long as nobody dies.
RemoteMemoryOptions Here(int num_lanes = 1, bool direct = false) {
  return {.addresses = {"127.0.0.1"}, .num_lanes = num_lanes, .direct = direct};
}

#ifdef __SANITIZE_THREAD__
#define SKIP_WITHOUT_UCX() GTEST_SKIP() << "UCX is not compiled for ThreadSanitizer"
#else
#define SKIP_WITHOUT_UCX() \
  if (!MemoryOwner::Create(Here())) GTEST_SKIP() << "UCX is not installed, or cannot use this machine"
#endif

std::vector<std::byte> Pattern(size_t bytes, uint32_t seed) {
  std::vector<std::byte> data(bytes);
  std::mt19937 random(seed);
  for (std::byte& b : data) b = static_cast<std::byte>(random());
  return data;
}

size_t OpenFiles() {
  const std::filesystem::directory_iterator files("/proc/self/fd");
  return static_cast<size_t>(std::distance(begin(files), end(files)));
}

ReadLimits Within(Duration time) {
  return {.deadline = Now() + time};
}

// An owner of two pieces of memory, told of in a file descriptor's stream.
struct Story {
  std::string port;
  MemoryRegion region;
};
constexpr size_t kStoryBytes = 3 << 20;

void TellAll(int fd, const std::string& text) {
  const uint64_t bytes = text.size();
  ASSERT_EQ(write(fd, &bytes, 8), 8);
  ASSERT_EQ(write(fd, text.data(), bytes), static_cast<ssize_t>(bytes));
}
std::string HearAll(int fd) {
  uint64_t bytes = 0;
  if (read(fd, &bytes, 8) != 8 || bytes > 1 << 20) return "";
  std::string text(bytes, '\0');
  return read(fd, text.data(), bytes) == static_cast<ssize_t>(bytes) ? text : "";
}
void Tell(int fd, const Story& story) {
  TellAll(fd, story.port);
  TellAll(fd, {reinterpret_cast<const char*>(&story.region.address), 8});
  TellAll(fd, story.region.key);
}
Story Hear(int fd) {
  Story story{.port = HearAll(fd), .region = {.bytes = kStoryBytes}};
  if (const std::string address = HearAll(fd); address.size() == 8)
    std::memcpy(&story.region.address, address.data(), 8);
  story.region.key = HearAll(fd);
  return story;
}

struct Child {
  pid_t pid = 0;
  int to[2] = {-1, -1}, from[2] = {-1, -1};

  // UCX does not bear being forked: children are made before it is used.
  explicit Child(void (*run)(int in, int out)) {
    if (pipe(to) != 0 || pipe(from) != 0) abort();
    pid = fork();
    if (pid != 0) return;
    run(to[0], from[1]);
    _exit(0);
  }
  ~Child() {
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
    for (const int fd : {to[0], to[1], from[0], from[1]}) close(fd);
  }
};

void Own(int, int out) {
  const auto owner = MemoryOwner::Create(Here());
  if (!owner) _exit(1);
  const auto data = Pattern(kStoryBytes, 1);
  const auto mapped = (*owner)->Map(data.data(), data.size());
  if (!mapped) _exit(1);
  Tell(out, {(*owner)->port(), (*mapped)->region()});
  while (true) pause();
}

// Reads until it is killed.
void ReadOn(int in, int out) {
  const auto reader = MemoryReader::Create(Here(1));
  if (!reader) _exit(1);
  const Story story = Hear(in);
  (*reader)->Attach("127.0.0.1", story.port, {story.region});
  std::vector<std::byte> to(kStoryBytes);
  while ((*reader)->Read(0, 0, to, Within(20s))) TellAll(out, "read");
  _exit(1);
}

// What the environment says to UCX comes before what Cadre chooses.
void OwnElsewhere(int, int out) {
  setenv("UCX_NET_DEVICES", "nosuch0", 1);
  setenv("UCX_LOG_LEVEL", "fatal", 1);
  const auto owner = MemoryOwner::Create(Here());
  TellAll(out, owner ? "made" : owner.error().message);
}

// First of all (gtest runs suites of this name first): nothing has used UCX yet.
TEST(RemoteMemoryDeathTest, ProcessesThatStopAndDie) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "UCX is not compiled for ThreadSanitizer";
#endif
  const Child stopped(Own), reading(ReadOn), elsewhere(OwnElsewhere);
  const Story story = Hear(stopped.from[0]);
  if (story.port.empty()) GTEST_SKIP() << "UCX is not installed, or cannot use this machine";
  // Readers that die while they connect, or with an answer on its way, leave the owner as it is.
  for (int i = 0; i < 40; ++i) {
    const Child dying(ReadOn);
    Tell(dying.to[1], story);
    std::this_thread::sleep_for(2ms + i * 500us);
  }
  ASSERT_EQ(waitpid(stopped.pid, nullptr, WNOHANG), 0);
  if (!HasRdma()) {
    EXPECT_EQ(HearAll(elsewhere.from[0]).find("UCX cannot start"), 0u);
  }
  const auto wanted = Pattern(kStoryBytes, 1);
  std::vector<std::byte> to(kStoryBytes);
  {
    const auto reader = MemoryReader::Create(Here(1));
    ASSERT_TRUE(reader) << reader.error().message;
    (*reader)->Attach("127.0.0.1", story.port, {story.region});
    const Status read = (*reader)->Read(0, 0, to, Within(20s));
    ASSERT_TRUE(read) << read.error().message;
    EXPECT_EQ(to, wanted);

    // A stopped owner: the deadline, or whatever else ends the read; then nothing is written any more.
    for (const bool by_check : {false, true}) {
      kill(stopped.pid, SIGSTOP);
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
      kill(stopped.pid, SIGCONT);
      EXPECT_FALSE((*reader)->Read(0, 0, to, Within(20s)));  // broken
      std::this_thread::sleep_for(50ms);
      EXPECT_EQ(to, left);
      (*reader)->Attach("127.0.0.1", story.port, {story.region});  // and all is well again
      const Status again = (*reader)->Read(0, 0, to, Within(20s));
      ASSERT_TRUE(again) << again.error().message;
      EXPECT_EQ(to, wanted);
    }

    kill(stopped.pid, SIGKILL);
    const TimePoint start = Now();
    while (true) {  // some of it may still come
      const Status dead = (*reader)->Read(0, 0, to, Within(20s));
      if (dead) continue;
      EXPECT_EQ(dead.error().code, Code::kUnavailable) << dead.error().message;
      break;
    }
    EXPECT_LT(Now() - start, 5s);
    (*reader)->Attach("127.0.0.1", story.port, {story.region});
    EXPECT_FALSE((*reader)->Read(0, 0, to, Within(5s)));
  }

  // A reader that dies in the middle leaves the owner as it is.
  const auto owner = MemoryOwner::Create(Here());
  ASSERT_TRUE(owner) << owner.error().message;
  const auto mapped = (*owner)->Map(wanted.data(), wanted.size());
  ASSERT_TRUE(mapped);
  Tell(reading.to[1], {(*owner)->port(), (*mapped)->region()});
  for (int i = 0; i < 3; ++i) ASSERT_EQ(HearAll(reading.from[0]), "read");
  kill(reading.pid, SIGKILL);
  const auto reader = MemoryReader::Create(Here(1));
  ASSERT_TRUE(reader);
  (*reader)->Attach("127.0.0.1", (*owner)->port(), {(*mapped)->region()});
  ASSERT_TRUE((*reader)->Read(0, 0, to, Within(20s)));
  EXPECT_EQ(to, wanted);
}

class RemoteMemory : public testing::TestWithParam<bool> {
 protected:
  bool direct() const { return GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(Ways, RemoteMemory, testing::Bool(),
                         [](const auto& way) { return way.param ? "direct" : "asked"; });

TEST_P(RemoteMemory, AnyPieceOfAnyRegionByAnyThread) {
  SKIP_WITHOUT_UCX();
  const auto owner = MemoryOwner::Create(Here(1, direct()));
  ASSERT_TRUE(owner);
  std::vector<std::vector<std::byte>> data;
  std::vector<std::unique_ptr<MappedMemory>> mapped;
  std::vector<MemoryRegion> regions;
  for (const size_t bytes : {1, 100, 8192, 70001, 3 << 20}) {
    data.push_back(Pattern(bytes, static_cast<uint32_t>(bytes)));
    auto one = (*owner)->Map(data.back().data(), bytes);
    ASSERT_TRUE(one) << one.error().message;
    EXPECT_EQ((*one)->region().bytes, bytes);
    regions.push_back((*one)->region());
    mapped.push_back(std::move(*one));
  }
  EXPECT_EQ((*owner)->Map(data[0].data(), 0).error().code, Code::kInvalidArgument);
  // A reader without RDMA asks whatever the owner has.
  for (const auto& [lanes, reads_direct] :
       {std::pair(1, direct()), std::pair(3, direct()), std::pair(2, false)}) {
    const auto reader = MemoryReader::Create(Here(lanes, reads_direct));
    ASSERT_TRUE(reader) << reader.error().message;
    (*reader)->Attach("127.0.0.1", (*owner)->port(), regions);
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
  SKIP_WITHOUT_UCX();
  auto owner = MemoryOwner::Create(Here(1, direct()));
  const auto data = Pattern(5000, 1);
  const auto mapped = (*owner)->Map(data.data(), data.size());
  const auto reader = MemoryReader::Create(Here(1, direct()));
  (*reader)->Attach("127.0.0.1", (*owner)->port(), {(*mapped)->region()});
  std::vector<std::byte> to(5000);
  ASSERT_TRUE((*reader)->Read(0, 0, to, Within(20s)));
  owner->reset();  // what it mapped stays behind and does no harm
  const TimePoint start = Now();
  const Status read = (*reader)->Read(0, 0, to, Within(10s));
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code, Code::kUnavailable) << read.error().message;
  EXPECT_LT(Now() - start, 5s);
}

// Whoever asks gets what is mapped and nothing else, whatever it says about where that lies.
TEST(RemoteMemoryAsked, OnlyWhatIsMappedIsRead) {
  SKIP_WITHOUT_UCX();
  const auto owner = MemoryOwner::Create(Here());
  const auto data = Pattern(5000, 1);
  auto mapped = (*owner)->Map(data.data() + 1000, 1000);
  const auto reader = MemoryReader::Create(Here());
  const MemoryRegion good = (*mapped)->region();
  std::vector<std::byte> to(2000);
  const auto read = [&](MemoryRegion region, uint64_t offset, size_t bytes) {
    (*reader)->Attach("127.0.0.1", (*owner)->port(), {std::move(region)});
    return (*reader)->Read(0, offset, std::span(to).first(bytes), Within(20s));
  };
  EXPECT_TRUE(read(good, 0, 1000));
  EXPECT_TRUE(std::equal(to.begin(), to.begin() + 1000, data.begin() + 1000));
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
  mapped->reset();
  EXPECT_FALSE(read(good, 999, 1));
}

// Keys and addresses as a hostile owner might tell them: an error, or what is there.
TEST_P(RemoteMemory, WildKeysAndAddressesAreErrors) {
  SKIP_WITHOUT_UCX();
  const auto owner = MemoryOwner::Create(Here(1, direct()));
  const auto data = Pattern(5000, 1);
  const auto mapped = (*owner)->Map(data.data(), data.size());
  const auto reader = MemoryReader::Create(Here(1, direct()));
  std::vector<std::byte> to(100);
  int num_failed = 0;
  for (uint32_t seed = 0; seed < 60; ++seed) {
    std::mt19937 random(seed);
    MemoryRegion region = (*mapped)->region();
    for (int i = 0; i < 3; ++i) region.key[random() % region.key.size()] = static_cast<char>(random());
    if (seed % 4 == 0) {
      for (char& c : region.key) c = static_cast<char>(random());
    }
    if (seed % 8 < 4) region.key.resize(random() % 200 + 1);
    (*reader)->Attach("127.0.0.1", (*owner)->port(), {region});
    const Status read = (*reader)->Read(0, 0, to, Within(20s));
    num_failed += !read;
    EXPECT_TRUE(!read || std::equal(to.begin(), to.end(), data.begin())) << seed;
  }
  EXPECT_GT(num_failed, direct() ? 0 : 10);  // TCP wants no key
  const std::pair<std::string, std::string> nowhere[] = {
      {"", ""},  {"127.0.0.1", ""},  {"127.0.0.1", "70000"}, {"127.0.0.1", "-1"}, {"127.0.0.1", "8o"},
      {"", "9"}, {"localhost", "9"}, {"127.0.0.1", "0"},     {"127.0.0.1", "1"}};
  for (const auto& [host, port] : nowhere) {
    (*reader)->Attach(host, port, {(*mapped)->region()});
    EXPECT_FALSE((*reader)->Read(0, 0, to, Within(20s))) << host << " " << port;
  }
  (*reader)->Attach("127.0.0.1", (*owner)->port(), {(*mapped)->region()});
  EXPECT_TRUE((*reader)->Read(0, 0, to, Within(20s)));
}

// The owner keeps nothing of readers that have gone, nor of memory that is mapped no more.
TEST_P(RemoteMemory, AHundredRoundsLeaveNothingBehind) {
  SKIP_WITHOUT_UCX();
  const auto owner = MemoryOwner::Create(Here(1, direct()));
  const auto reader = MemoryReader::Create(Here(2, direct()));
  const auto data = Pattern(100'000, 1);
  std::vector<std::byte> to(data.size());
  size_t files = 0;
  for (int round = 0; round < 100; ++round) {
    const auto mapped = (*owner)->Map(data.data(), data.size());
    ASSERT_TRUE(mapped);
    (*reader)->Attach("127.0.0.1", (*owner)->port(), {(*mapped)->region()});
    std::ranges::fill(to, std::byte{0});
    const Status read = (*reader)->Read(0, 0, to, Within(20s));
    ASSERT_TRUE(read) << read.error().message;
    ASSERT_EQ(to, data);
    (*reader)->Detach();
    if (round == 4) files = OpenFiles();
  }
  const TimePoint until = Now() + 5s;
  while (OpenFiles() > files && Now() < until) std::this_thread::sleep_for(5ms);
  EXPECT_LE(OpenFiles(), files);
}

}  // namespace
}  // namespace cadre::fabric
