// A recorded load from a file: any bytes are read or refused, and what is read is written back the same.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "eplb/load_record.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto record =
      cadre::eplb::ReadLoadRecord(std::string_view(reinterpret_cast<const char*>(data), size));
  if (!record) return 0;
  const auto again = cadre::eplb::ReadLoadRecord(cadre::eplb::WriteLoadRecord(*record));
  CADRE_CHECK(again.has_value() && *again == *record);
  return 0;
}
