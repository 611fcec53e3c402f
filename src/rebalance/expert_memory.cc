#include "rebalance/expert_memory.h"

#include "base/check.h"

namespace cadre::rebalance {

Result<std::unique_ptr<ExpertMemory>> ExpertMemory::Create(const ExpertMemoryOptions& options) {
  CADRE_CHECK(options.place_bytes % 64 == 0 && options.max_places >= 0);
  std::unique_ptr<ExpertMemory> memory(new ExpertMemory());
  memory->place_bytes_ = options.place_bytes;
  memory->message_bytes_ = options.message_bytes > 0 ? options.message_bytes : kMessageBytes;
  const fabric::FabricSpec spec{
      .name = "experts",
      .segment_bytes = static_cast<size_t>(options.place_bytes) * static_cast<size_t>(options.max_places),
      .num_flags = 2,
      .spin = options.spin,
      .num_channels = 2,
      .landing_bytes = 2 * (kHeadBytes + static_cast<size_t>(memory->message_bytes_))};
  CADRE_ASSIGN(memory->fabric_, options.rendezvous->Open(spec, options.join_deadline));
  return memory;
}

}  // namespace cadre::rebalance
