#pragma once
// The messages between a rank and its broker: fields in order, native byte order (one host, one build).
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace cadre::fabric {

constexpr uint32_t kWireVersion = 1;
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
    if (rest_.size() < sizeof(T)) {
      ok_ = false;
      rest_ = {};
      return value;
    }
    std::memcpy(&value, rest_.data(), sizeof(T));
    rest_.remove_prefix(sizeof(T));
    return value;
  }
  std::string GetText() {
    const auto n = Get<uint32_t>();
    if (n > rest_.size()) {
      ok_ = false;
      rest_ = {};
      return {};
    }
    std::string text(rest_.substr(0, n));
    rest_.remove_prefix(n);
    return text;
  }
  bool ok() const { return ok_; }

 private:
  std::string text_;
  std::string_view rest_;
  bool ok_ = true;
};

}  // namespace cadre::fabric
