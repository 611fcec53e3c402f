// Weights over UCX against the folder that they come from.
#include "deploy/weight_memory.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <thread>

#include "checkpoint/remote_offer_testing.h"
#include "checkpoint/safetensors.h"
#include "fabric/memory_owner_testing.h"
#include "model/tiny.h"
#include "sys/sockets.h"

namespace cadre::deploy {
namespace {

using namespace std::chrono_literals;
using checkpoint::TensorInfo;

TimePoint Soon() {
  return Now() + 20s;
}

// A trainer: holds every tensor of a folder in the memory of a process and offers it to one receiver, again
// and again.
class Trainer {
 public:
  Trainer(const checkpoint::TensorSource& folder, fabric::test::OwnerProcess& owner)
      : listener_(*sys::ListenTcp("127.0.0.1", 0)), port_(*sys::LocalPort(listener_.get())) {
    head_ = checkpoint::MakeSafetensorsHeader(folder.tensors());
    Map(owner, std::vector<std::byte>(checkpoint::kProbeBytes, std::byte{'p'}));
    for (const TensorInfo& tensor : folder.tensors()) {
      std::vector<std::byte> bytes(static_cast<size_t>(tensor.num_bytes));
      EXPECT_TRUE(folder.Read(tensor, 0, tensor.num_bytes, bytes.data()));
      offer_.pieces.push_back({static_cast<uint32_t>(offer_.regions.size()), 0, bytes.size()});
      data_bytes_ += bytes.size();
      Map(owner, bytes);
    }
    offer_.port = owner.port();
    thread_ = std::thread([this] { Serve(); });
  }
  ~Trainer() { thread_.join(); }

  uint16_t port() const { return port_; }
  std::atomic<int> num_ends = 0, num_used = 0;

 private:
  void Map(fabric::test::OwnerProcess& owner, std::span<const std::byte> bytes) {
    const fabric::MemoryRegion region = owner.Map(bytes);
    offer_.regions.push_back({region.address, region.bytes, region.key});
  }
  void Serve() {
    auto fd = sys::Accept(listener_.get(), Soon());
    if (!fd) return;
    const auto send = [&](const std::string& text) {
      return sys::SendAll(fd->get(), std::as_bytes(std::span(text)), Soon()).has_value();
    };
    std::array<std::byte, 24> hello, ask;
    if (!sys::RecvAll(fd->get(), hello, Soon()) || !send("UCX\xff")) return;
    while (sys::RecvAll(fd->get(), ask, Soon())) {
      std::array<uint64_t, 3> what;
      std::memcpy(what.data(), ask.data(), sizeof(what));
      if (what[0] == 3) {
        ++num_ends;
        num_used += what[2] == 1;
        continue;
      }
      const std::string offer = offer_.Text();
      const std::array<uint64_t, 4> sizes = {1, head_.size() + data_bytes_, head_.size(), offer.size()};
      const auto* number = reinterpret_cast<const char*>(sizes.data());
      if (!send(std::string(number, 24) + head_ + std::string(number + 24, 8) + offer)) return;
    }
  }

  sys::Fd listener_;
  uint16_t port_;
  std::string head_;
  checkpoint::test::OfferParts offer_{.probe = std::string(checkpoint::kProbeBytes, 'p')};
  uint64_t data_bytes_ = 0;
  std::thread thread_;
};

class WeightMemoryTest : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
#ifdef __SANITIZE_THREAD__
    GTEST_SKIP() << "UCX is not compiled for ThreadSanitizer";
#endif
    std::string why;
    owner_ = fabric::test::OwnerProcess::Start(CADRE_MEMORY_OWNER, GetParam(), why);
    if (owner_ == nullptr) GTEST_SKIP() << why;
    folder_ = std::filesystem::temp_directory_path() / ("cadre_weight_memory_" + std::to_string(getpid()));
    std::filesystem::create_directories(folder_);
    ASSERT_TRUE(model::WriteTinyCheckpoint(folder_, {.seed = 3}).has_value());
    source_ = *checkpoint::OpenCheckpoint(folder_);
  }
  void TearDown() override {
    if (!folder_.empty()) std::filesystem::remove_all(folder_);
  }
  checkpoint::RemoteOptions Options(uint16_t port) const {
    return {.host = "127.0.0.1",
            .port = port,
            .num_streams = 2,
            .deadline = Soon(),
            .open_memory = [](const checkpoint::RemoteEnds& ends) {
              return OpenWeightMemoryWith(
                  ends, {.addresses = {ends.here}, .num_lanes = ends.num_lanes, .direct = GetParam()});
            }};
  }

  std::unique_ptr<fabric::test::OwnerProcess> owner_;
  std::filesystem::path folder_;
  std::unique_ptr<checkpoint::TensorSource> source_;
};
INSTANTIATE_TEST_SUITE_P(Ways, WeightMemoryTest, testing::Bool(),
                         [](const auto& way) { return way.param ? "direct" : "asked"; });

TEST_P(WeightMemoryTest, BringsWhatTheFolderHolds) {
  Trainer trainer(*source_, *owner_);
  {
    const auto remote = checkpoint::RemoteWeights::Connect(Options(trainer.port()));
    ASSERT_TRUE(remote) << remote.error().message;
    for (int round = 0; round < 3; ++round) {
      const auto came = (*remote)->Receive(Soon());
      ASSERT_TRUE(came) << came.error().message;
      ASSERT_EQ((*came)->tensors().size(), source_->tensors().size());
      std::atomic<size_t> next = 0, num_equal = 0;
      const auto compare = [&] {  // whole tensors and pieces of them, by two threads
        for (size_t i = next++; i < source_->tensors().size(); i = next++) {
          const TensorInfo& wanted = source_->tensors()[i];
          const TensorInfo* found = (*came)->Find(wanted.name);
          if (found == nullptr || found->shape != wanted.shape) continue;
          const int64_t begin = round == 0 ? 0 : wanted.num_bytes / 3, bytes = wanted.num_bytes - begin;
          std::vector<std::byte> a(static_cast<size_t>(bytes)), b(a.size());
          num_equal += source_->Read(wanted, begin, bytes, a.data()) &&
                       (*came)->Read(*found, begin, bytes, b.data()) && a == b;
        }
      };
      std::thread other(compare);
      compare();
      other.join();
      EXPECT_EQ(num_equal, source_->tensors().size());
      (*remote)->Finish(round != 1);
    }
  }
  while (trainer.num_ends < 3) std::this_thread::sleep_for(1ms);
  EXPECT_EQ(trainer.num_used, 2);
}

TEST_P(WeightMemoryTest, ATrainerWhoseUcxEndsFailsTheRead) {
  Trainer trainer(*source_, *owner_);
  const auto remote = checkpoint::RemoteWeights::Connect(Options(trainer.port()));
  ASSERT_TRUE(remote) << remote.error().message;
  const auto came = (*remote)->Receive(Soon());
  ASSERT_TRUE(came) << came.error().message;
  owner_->End();
  const TensorInfo& tensor = (*came)->tensors().front();
  std::vector<std::byte> to(static_cast<size_t>(tensor.num_bytes));
  const TimePoint start = Now();
  const Status read = (*came)->Read(tensor, 0, tensor.num_bytes, to.data());
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code, Code::kUnavailable);
  EXPECT_LT(Now() - start, 10s);
  (*remote)->Finish(false);
  // The next offer cannot be reached either, and says so before anything is read.
  const auto again = (*remote)->Receive(Soon());
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, Code::kUnavailable) << again.error().message;
}

}  // namespace
}  // namespace cadre::deploy
