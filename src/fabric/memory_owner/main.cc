// An owner of memory as a process of its own; memory_owner_testing.h starts it, and tells it what to do.
//
//   memory_owner asked|direct
#include <map>
#include <string>
#include <vector>

#include "fabric/memory_owner_testing.h"

namespace cadre::fabric {
namespace {

// Answers until the other side goes.
void Serve(std::unique_ptr<MemoryOwner> owner) {
  std::vector<std::unique_ptr<std::string>> memory;
  std::map<std::string, std::unique_ptr<MappedMemory>> mapped;  // by key
  while (const auto order = test::Hear(test::kOrders)) {
    if (*order == "map") {
      memory.push_back(std::make_unique<std::string>(test::Hear(test::kOrders).value_or("")));
      auto done = owner->Map(memory.back()->data(), memory.back()->size());
      const MemoryRegion region = done ? (*done)->region() : MemoryRegion();
      if (done) mapped[region.key] = std::move(*done);
      test::Tell(test::kOrders, Format("{}", region.address));
      test::Tell(test::kOrders, region.key);
    } else if (*order == "unmap") {
      mapped.erase(test::Hear(test::kOrders).value_or(""));
      test::Tell(test::kOrders, "");
    } else if (*order == "end") {
      owner.reset();
      test::Tell(test::kOrders, "");
    }
  }
}

}  // namespace
}  // namespace cadre::fabric

int main(int argc, char** argv) {
  using namespace cadre::fabric;
  const bool direct = argc > 1 && std::string_view(argv[1]) == "direct";
  auto owner = MemoryOwner::Create({.addresses = {"127.0.0.1"}, .direct = direct});
  test::Tell(test::kOrders, owner ? "" : owner.error().message);
  test::Tell(test::kOrders, owner ? (*owner)->port() : "");
  if (owner) Serve(std::move(*owner));
}
