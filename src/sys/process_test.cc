#include "sys/process.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <fstream>
#include <sstream>
#include <thread>

#include "sys/shared_memory.h"
#include "sys/sockets.h"

namespace cadre::sys {
namespace {

using namespace std::chrono_literals;

SpawnOptions Shell(const std::string& script) {
  SpawnOptions options;
  options.program = "/bin/sh";
  options.args = {"-c", script};
  options.pass_on = false;
  return options;
}

TEST(Process, CapturesLastLinesAndTheWayItEnded) {
  auto options = Shell("for i in 1 2 3 4 5; do echo line $i; done; echo $CADRE_X >&2; printf end; exit 3");
  options.env = {{"CADRE_X", "from the parent"}};
  options.keep_lines = 3;
  auto child = Child::Spawn(options);
  ASSERT_TRUE(child);
  const auto status = (*child)->Wait(Now() + 20s);
  ASSERT_TRUE(status);
  EXPECT_EQ(status->Describe(), "exited with code 3");
  EXPECT_EQ((*child)->LastLines(), (std::vector<std::string>{"line 5", "from the parent", "end"}));
  EXPECT_FALSE(status->ok());
}

TEST(Process, LinesAreAlsoWrittenToAFile) {
  const std::string path = "/tmp/cadre_process_test_" + std::to_string(getpid());
  for (const char* text : {"a longer line", "two\nlines"}) {
    auto options = Shell("printf '" + std::string(text) + "'");
    options.log_file = path;
    auto child = Child::Spawn(options);
    ASSERT_TRUE(child);
    ASSERT_TRUE((*child)->Wait(Now() + 20s));
    std::ifstream file(path);
    std::ostringstream written;
    written << file.rdbuf();
    EXPECT_EQ(written.str(), std::string(text) + "\n");  // the older file is replaced
  }
  unlink(path.c_str());
  auto options = Shell("true");
  options.log_file = "/nowhere/at/all";
  EXPECT_NE(Child::Spawn(options).error().message.find("/nowhere/at/all"), std::string::npos);
}

TEST(Process, AGroupOfItsOwnEndsWithItsChild) {
  auto options = Shell("sleep 100 & echo $!; exit 0");
  options.own_group = true;
  auto child = Child::Spawn(options);
  ASSERT_TRUE(child);
  ASSERT_TRUE((*child)->Wait(Now() + 20s));
  ASSERT_EQ((*child)->LastLines().size(), 1u);
  const int grandchild = std::stoi((*child)->LastLines()[0]);
  // Gone, or a zombie that nobody has reaped yet.
  const auto lives = [&] {
    std::ifstream file("/proc/" + std::to_string(grandchild) + "/stat");
    std::string text;
    return std::getline(file, text) && text.find(") Z ") == text.npos;
  };
  const TimePoint limit = Now() + 10s;
  while (lives() && Now() < limit) std::this_thread::sleep_for(10ms);
  EXPECT_FALSE(lives());
}

TEST(Process, SignalsAndDeadlines) {
  auto child = Child::Spawn(Shell("exec sleep 100"));
  ASSERT_TRUE(child);
  EXPECT_FALSE((*child)->Wait(Now() + 20ms));
  (*child)->Kill(SIGKILL);
  const auto status = (*child)->Wait(Now() + 20s);
  ASSERT_TRUE(status);
  EXPECT_EQ(status->Describe(), "was killed by SIGKILL");
  EXPECT_EQ(SignalName(SIGSEGV), "SIGSEGV");
}

TEST(Process, AGrandchildThatKeepsThePipeDoesNotHoldUs) {
  auto child = Child::Spawn(Shell("sleep 30 & echo started; exit 0"));
  ASSERT_TRUE(child);
  const auto start = Now();
  ASSERT_TRUE((*child)->Wait(Now() + 20s));
  EXPECT_LT(SecondsSince(start), 10);
  EXPECT_EQ((*child)->LastLines(), std::vector<std::string>{"started"});
}

TEST(Process, AProgramThatIsNotThereIsAnError) {
  SpawnOptions options;
  options.program = "/no/such/program";
  const auto child = Child::Spawn(options);
  ASSERT_FALSE(child);
  EXPECT_EQ(child.error().code, Code::kNotFound);
}

TEST(Process, DescriptorsArriveUnderTheirNumbers) {
  auto pair = SocketPair();
  ASSERT_TRUE(pair);
  auto other = SocketPair();
  auto options = Shell("echo hello >&5; echo other >&3");
  options.fds = {{pair->second.get(), 5}, {other->second.get(), 3}};
  auto child = Child::Spawn(options);
  ASSERT_TRUE(child);
  pair->second.Reset();
  std::array<std::byte, 6> got;
  ASSERT_TRUE(RecvAll(pair->first.get(), got, Now() + 20s));
  EXPECT_EQ(std::memcmp(got.data(), "hello\n", 6), 0);
  ASSERT_TRUE(RecvAll(other->first.get(), got, Now() + 20s));
  EXPECT_EQ(std::memcmp(got.data(), "other\n", 6), 0);
  EXPECT_TRUE((*child)->Wait(Now() + 20s)->ok());
  const auto gone = RecvAll(pair->first.get(), got, Now() + 20s);
  EXPECT_EQ(gone.error().code, Code::kUnavailable);
}

TEST(Sockets, FramesCarryDescriptorsAndBounds) {
  auto pair = SocketPair();
  auto segment = CreateSegment("cadre-test", 10000, true);
  ASSERT_TRUE(segment) << segment.error().message;
  std::memcpy(segment->region.data(), "shared", 6);
  const int fd = segment->fd.get();
  ASSERT_TRUE(SendFrame(pair->first.get(), 7, "body", {&fd, 1}, Now() + 5s));
  auto frame = RecvFrame(pair->second.get(), 4, Now() + 5s);
  ASSERT_TRUE(frame) << frame.error().message;
  EXPECT_EQ(frame->kind, 7u);
  EXPECT_EQ(frame->body, "body");
  ASSERT_EQ(frame->fds.size(), 1u);
  const auto seen = MapSegment(frame->fds[0].get(), 10000, Access::kRead);
  ASSERT_TRUE(seen);
  EXPECT_EQ(std::memcmp(seen->data(), "shared", 6), 0);
  EXPECT_FALSE(MapSegment(frame->fds[0].get(), 10000, Access::kReadWrite)) << "writes are sealed";
  EXPECT_EQ(MapSegment(frame->fds[0].get(), 1 << 20, Access::kRead).error().code, Code::kDataLoss);

  ASSERT_TRUE(SendFrame(pair->first.get(), 7, "too long", {}, Now() + 5s));
  EXPECT_EQ(RecvFrame(pair->second.get(), 4, Now() + 5s).error().code, Code::kDataLoss);
  auto garbage = SocketPair();
  ASSERT_TRUE(
      SendAll(garbage->first.get(), std::as_bytes(std::span("GET / HTTP/1.1\r\n\r\n", 18)), Now() + 5s));
  EXPECT_EQ(RecvFrame(garbage->second.get(), 1 << 20, Now() + 5s).error().code, Code::kDataLoss);
  auto silent = SocketPair();
  EXPECT_EQ(RecvFrame(silent->second.get(), 4, Now() + 20ms).error().code, Code::kDeadlineExceeded);
  silent->first.Reset();
  EXPECT_EQ(RecvFrame(silent->second.get(), 4, Now() + 5s).error().code, Code::kUnavailable);
}

TEST(Sockets, LargeFramesWaitForTheReader) {
  auto pair = SocketPair();
  const std::string body(3 << 20, 'x');
  std::thread sender([&] { EXPECT_TRUE(SendFrame(pair->first.get(), 1, body, {}, Now() + 20s)); });
  const auto frame = RecvFrame(pair->second.get(), 4 << 20, Now() + 20s);
  sender.join();
  ASSERT_TRUE(frame);
  EXPECT_EQ(frame->body, body);
  EXPECT_EQ(SendFrame(pair->first.get(), 1, body, {}, Now() + 20ms).error().code, Code::kDeadlineExceeded);
}

TEST(Sockets, TcpAndUnixConnect) {
  auto listener = ListenTcp("127.0.0.1", 0);
  ASSERT_TRUE(listener) << listener.error().message;
  const uint16_t port = *LocalPort(listener->get());
  EXPECT_FALSE(ListenTcp("127.0.0.1", port));
  auto client = ConnectTcp("127.0.0.1", port, Now() + 5s);
  ASSERT_TRUE(client) << client.error().message;
  auto server = Accept(listener->get(), Now() + 5s);
  ASSERT_TRUE(server);
  ASSERT_TRUE(SendFrame(client->get(), 1, "tcp", {}, Now() + 5s));
  EXPECT_EQ(RecvFrame(server->get(), 10, Now() + 5s)->body, "tcp");
  EXPECT_EQ(Accept(listener->get(), Now() + 10ms).error().code, Code::kDeadlineExceeded);
  listener->Reset();
  EXPECT_FALSE(ConnectTcp("127.0.0.1", port, Now() + 5s));
  EXPECT_EQ(ConnectTcp("no-such-host.invalid", 1, Now() + 5s).error().code, Code::kNotFound);

  const std::string path = testing::TempDir() + "cadre_" + std::to_string(getpid()) + ".sock";
  for (const std::string& address : {path, "@cadre-test-" + std::to_string(getpid())}) {
    for (int start = 0; start < 2; ++start) {  // the second start finds the first's socket file
      auto unix_listener = ListenUnix(address);
      ASSERT_TRUE(unix_listener) << unix_listener.error().message;
      EXPECT_FALSE(ListenUnix(address)) << "in use";
      // ListenUnix tried whether somebody answers.
      if (address[0] != '@') Accept(unix_listener->get(), Now() + 5s);
      auto unix_client = ConnectUnix(address, Now() + 5s);
      ASSERT_TRUE(unix_client) << unix_client.error().message;
      auto unix_server = Accept(unix_listener->get(), Now() + 5s);
      ASSERT_TRUE(unix_server);
      EXPECT_EQ(*PeerUid(unix_server->get()), getuid());
    }
  }
  unlink(path.c_str());
  EXPECT_FALSE(ConnectUnix("/no/such/socket", Now() + 5s));
  EXPECT_FALSE(ListenUnix(std::string(200, 'x')));
}

}  // namespace
}  // namespace cadre::sys
