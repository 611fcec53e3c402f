#pragma once
// What is said on a connection between two ports before messages flow.
#include <array>
#include <cstdint>

namespace cadre::fabric {

constexpr uint64_t kPortMagic = 0x4B4E494C45524443;  // "CDRELINK"
constexpr uint32_t kPortVersion = 1;

struct PortHello {
  uint64_t magic = kPortMagic;
  uint32_t version = kPortVersion;
  uint32_t rail = 0, num_rails = 0, reserved = 0;
  uint64_t key = 0;
};
static_assert(sizeof(PortHello) == 32);

struct PortAnswer {
  uint64_t magic = kPortMagic;
  uint32_t version = kPortVersion;
  uint32_t accepted = 0;
};
static_assert(sizeof(PortAnswer) == 16);

}  // namespace cadre::fabric
