#pragma once
// The messages between a rank and its broker, and between hosts: fields in order, little-endian as on every
// machine that Cadre runs on (a magic number in the other order would be found out).
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace cadre::fabric {

constexpr uint32_t kWireVersion = 2;
constexpr size_t kMaxMessage = size_t{96} << 20;  // 64 blobs of 1 MiB and their heads

enum WireKind : uint32_t { kWelcome = 1, kMeet, kParcels, kRefused, kGoodbye };

class WireWriter {
 public:
  template <typename T>
  requires std::is_trivially_copyable_v<T> WireWriter& Put(T value) {
    text_.append(reinterpret_cast<const char*>(&value), sizeof(value));
    return *this;
  }
  WireWriter& PutText(std::string_view text) {
    Put(static_cast<uint32_t>(text.size()));
    text_.append(text);
    return *this;
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

/// Reading past the end gives zeros and turns ok() false.
class WireReader {
 public:
  explicit WireReader(std::string text) : text_(std::move(text)), rest_(text_) {}
  WireReader(const WireReader&) = delete;
  WireReader& operator=(const WireReader&) = delete;

  template <typename T>
  requires std::is_trivially_copyable_v<T> T Get() {
    T value = {};
    Take(&value, sizeof(T));
    return value;
  }
  std::string GetText() {
    const std::string_view text = TakeView(Get<uint32_t>());
    return std::string(text);
  }
  bool ok() const { return ok_; }

 private:
  void Take(void* to, size_t bytes);
  std::string_view TakeView(size_t bytes);

  std::string text_;
  std::string_view rest_;
  bool ok_ = true;
};

}  // namespace cadre::fabric
