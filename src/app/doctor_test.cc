#include "app/doctor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <thread>

#include "kernels/isa.h"
#include "sys/sockets.h"

namespace cadre::app {
namespace {

using testing::HasSubstr;

const Finding& Last(const Findings& findings, const std::string& name) {
  const auto at = std::ranges::find(findings, name, &Finding::name);
  EXPECT_NE(at, findings.end()) << name;
  return at == findings.end() ? findings.back() : *at;
}

Findings Ask(const std::string& peer, double timeout_s = 3) {
  config::DoctorOptions options;
  options.link = "tcp";  // UCX does not like to be forked from a process that has used it, as this test is
  options.timeout_s = timeout_s;
  Findings findings;
  ExaminePeer(options, peer, findings);
  return findings;
}

uint16_t FreePort() {
  return *sys::LocalPort(sys::ListenTcp("127.0.0.1", 0)->get());
}

TEST(Doctor, EveryFindingSaysWhatItIs) {
  config::DoctorOptions options;
  options.measure = false;
  Findings findings;
  ExamineMachine(options, "", findings);
  ExamineDevices(options, "", findings);
  for (const char* name :
       {"cores", "instruction sets", "NUMA", "memory", "huge pages", "shared memory", "open files",
        "locked memory", "UCX", "between hosts", "between nodes", "back ends"}) {
    EXPECT_FALSE(Last(findings, name).value.empty()) << name;
  }
  for (const Finding& f : findings) {
    EXPECT_FALSE(f.section.empty());
    EXPECT_TRUE(f.data.is_object()) << f.name;
    EXPECT_FALSE(f.level >= Level::kWarning && f.meaning.empty()) << f.name;
  }
  EXPECT_THAT(Last(findings, "back ends").value, HasSubstr("deepep_low_latency"));
  const Json json = FindingsJson(findings);
  EXPECT_EQ(json.Find("findings")->AsArray().size(), findings.size());
  EXPECT_THAT(FindingsText(findings), HasSubstr("in the way of serving"));
}

TEST(Doctor, WhatBlocksIsSaid) {
  const Findings findings = {
      {.section = "a", .name = "b", .level = Level::kBlocks, .value = "v", .meaning = "m."}};
  EXPECT_TRUE(FindingsJson(findings).Find("blocks")->AsBool());
  EXPECT_THAT(FindingsText(findings), HasSubstr("X b"));
  EXPECT_THAT(FindingsText(findings), HasSubstr("1 thing stands in the way"));
}

TEST(Doctor, SaysWhyTilesOfTheCpuAreNotUsed) {
  if (kernels::IsaSupported(kernels::Isa::kAmx)) GTEST_SKIP() << "this CPU's tiles are used";
  const std::filesystem::path root = testing::TempDir() + "cadre_amx_" + std::to_string(getpid());
  std::filesystem::create_directories(root / "proc");
  std::ofstream(root / "proc/cpuinfo") << "processor : 0\nflags : fpu avx2 amx_bf16 amx_tile\n";
  config::DoctorOptions options;
  options.measure = false;
  Findings findings;
  ExamineMachine(options, root.string(), findings);
  std::filesystem::remove_all(root);
  const Finding& f = Last(findings, "instruction sets");
  EXPECT_EQ(f.level, Level::kWarning);
  EXPECT_THAT(f.value, HasSubstr("amx_tile"));
  EXPECT_THAT(f.meaning, HasSubstr("AMX is not used: "));
}

TEST(Doctor, AMachineWithoutProcIsNotServedOn) {
  config::DoctorOptions options;
  options.measure = false;
  Findings findings;
  ExamineMachine(options, "/no/such/root", findings);
  EXPECT_EQ(Last(findings, "memory").level, Level::kBlocks);
  EXPECT_EQ(Last(findings, "huge pages").level, Level::kWarning);
}

TEST(Doctor, PeersThatAreNotReached) {
  const auto port = FreePort();
  Findings refused = Ask(Format("127.0.0.1:{}", port));
  ASSERT_EQ(refused.size(), 1u);
  EXPECT_EQ(refused[0].level, Level::kBlocks);
  EXPECT_THAT(refused[0].value, HasSubstr("Connection refused"));
  EXPECT_THAT(refused[0].meaning, HasSubstr(Format("nobody listens on port {}", port)));
  Findings unknown = Ask("no-such-host.invalid");
  EXPECT_EQ(unknown[0].level, Level::kBlocks);
  EXPECT_THAT(unknown[0].meaning, HasSubstr("spelling"));
  for (const char* bad : {"", ":5", "h:", "h:0", "h:x", "h:70000", "[::1", "[::1]x", "[::1]:"}) {
    const Findings findings = Ask(bad, 0.5);
    EXPECT_EQ(findings[0].level, Level::kBlocks) << bad;
    EXPECT_FALSE(findings[0].value.empty()) << bad;
  }
}

TEST(Doctor, APortThatIsSomebodyElsesGetsNoBytes) {
  const auto listener = sys::ListenTcp("127.0.0.1", 0);
  ASSERT_TRUE(listener);
  std::string heard = "nothing";
  std::thread silent([&] {
    const auto visitor = sys::Accept(listener->get(), Now() + std::chrono::seconds(10));
    std::byte byte;
    const Status got = sys::RecvAll(visitor->get(), {&byte, 1}, Now() + std::chrono::seconds(10));
    if (got) heard = "a byte";
  });
  const Findings findings = Ask(Format("127.0.0.1:{}", *sys::LocalPort(listener->get())), 0.5);
  silent.join();
  EXPECT_EQ(heard, "nothing");
  ASSERT_EQ(findings.size(), 1u);
  EXPECT_EQ(findings[0].level, Level::kFine);
  EXPECT_THAT(findings[0].meaning, HasSubstr("no doctor"));
}

TEST(Doctor, TwoMeasureTheirLinkAndStrangersAreDropped) {
  config::DoctorOptions options;
  options.listen = FreePort();
  options.listen_address = "127.0.0.1";
  options.listen_seconds = 5;
  options.timeout_s = 5;
  std::thread listening([&] { EXPECT_TRUE(ListenForDoctors(options)); });
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  const auto port = static_cast<uint16_t>(*options.listen);
  {
    const auto stranger = sys::ConnectTcp("127.0.0.1", port, Now() + std::chrono::seconds(5));
    ASSERT_TRUE(stranger);
    const std::string garbage(4096, '\x5a');
    (void)sys::SendAll(stranger->get(), std::as_bytes(std::span(garbage)), Now() + std::chrono::seconds(1));
  }
  const Findings findings = Ask(Format("127.0.0.1:{}", port), 5);
  const Finding& tcp = Last(findings, "link tcp");
  EXPECT_EQ(tcp.level, Level::kInfo) << tcp.value;
  ASSERT_NE(tcp.data.Find("bytes_per_second"), nullptr) << tcp.value;
  EXPECT_GT(tcp.data.Find("bytes_per_second")->AsDouble(), 1e6);
  EXPECT_GT(tcp.data.Find("round_trip_us")->AsDouble(), 0);
  EXPECT_THAT(Last(findings, "meaning").value, HasSubstr("would be used"));
  listening.join();
}

}  // namespace
}  // namespace cadre::app
