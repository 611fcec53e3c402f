#include "deploy/weight_memory.h"

#include <algorithm>

namespace cadre::deploy {
namespace {

constexpr int32_t kMaxLanes = 8;  // each is a connection that the trainer's one thread serves

class WeightMemory final : public checkpoint::RemoteMemory {
 public:
  explicit WeightMemory(std::unique_ptr<fabric::MemoryReader> reader) : reader_(std::move(reader)) {}

  void Attach(const checkpoint::RemoteOffer& offer) override {
    std::vector<fabric::MemoryRegion> regions;
    regions.reserve(offer.regions().size());
    for (const checkpoint::RemoteRegion& region : offer.regions())
      regions.push_back({.address = region.address, .bytes = region.bytes, .key = region.key});
    reader_->Attach(offer.owner(), std::move(regions));
  }
  void Detach() override { reader_->Detach(); }
  Status Read(size_t region, uint64_t offset, std::span<std::byte> to, TimePoint deadline,
              const std::function<Status()>& check) override {
    return reader_->Read(region, offset, to, {.deadline = deadline, .check = check});
  }

 private:
  std::unique_ptr<fabric::MemoryReader> reader_;
};

}  // namespace

std::unique_ptr<checkpoint::RemoteMemory> WeightMemoryOver(std::unique_ptr<fabric::MemoryReader> reader) {
  return std::make_unique<WeightMemory>(std::move(reader));
}

Result<std::unique_ptr<checkpoint::RemoteMemory>> OpenWeightMemory(const std::string& local_address,
                                                                   int32_t num_lanes) {
  CADRE_ASSIGN(auto reader, fabric::MemoryReader::Create({.addresses = {local_address},
                                                          .num_lanes = std::clamp(num_lanes, 1, kMaxLanes)}));
  return WeightMemoryOver(std::move(reader));
}

}  // namespace cadre::deploy
