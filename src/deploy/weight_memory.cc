#include "deploy/weight_memory.h"

#include <algorithm>

namespace cadre::deploy {
namespace {

constexpr int32_t kMaxLanes = 8;  // each is a connection that the trainer's one thread serves

class WeightMemory final : public checkpoint::RemoteMemory {
 public:
  WeightMemory(std::unique_ptr<fabric::MemoryReader> reader, std::string host)
      : reader_(std::move(reader)), host_(std::move(host)) {}

  void Attach(const checkpoint::RemoteOffer& offer) override {
    std::vector<fabric::MemoryRegion> regions;
    regions.reserve(offer.regions().size());
    for (const checkpoint::RemoteRegion& region : offer.regions())
      regions.push_back({.address = region.address, .bytes = region.bytes, .key = region.key});
    reader_->Attach(host_, offer.port(), std::move(regions));
  }
  void Detach() override { reader_->Detach(); }
  Status Read(size_t region, uint64_t offset, std::span<std::byte> to, TimePoint deadline,
              const std::function<Status()>& check) override {
    return reader_->Read(region, offset, to, {.deadline = deadline, .check = check});
  }

 private:
  std::unique_ptr<fabric::MemoryReader> reader_;
  std::string host_;
};

}  // namespace

Result<std::unique_ptr<checkpoint::RemoteMemory>> OpenWeightMemory(const checkpoint::RemoteEnds& ends) {
  return OpenWeightMemoryWith(
      ends, {.addresses = {ends.here}, .num_lanes = std::clamp(ends.num_lanes, 1, kMaxLanes)});
}

Result<std::unique_ptr<checkpoint::RemoteMemory>> OpenWeightMemoryWith(
    const checkpoint::RemoteEnds& ends, const fabric::RemoteMemoryOptions& options) {
  CADRE_ASSIGN(auto reader, fabric::MemoryReader::Create(options));
  return std::make_unique<WeightMemory>(std::move(reader), ends.there);
}

}  // namespace cadre::deploy
