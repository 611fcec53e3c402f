// SentencePiece's precompiled_charsmap: a double-array trie (Darts) from text to an offset into a list of
// NUL-terminated replacements. Layout, little-endian: u32 size of the trie in bytes; that many bytes of u32
// units; the replacements. A unit (Darts-clone): bits 0-7 and 31 the label, bit 8 "has a value", bits 10-30
// the offset to its children (shifted left by 8 more if bit 9 is set); a value unit holds the value in bits
// 0-30.
//
// The way the table is used is tokenizers' own, not SentencePiece's: whole grapheme clusters of less than six
// bytes are looked up first, and the *shortest* entry that begins a cluster replaces all of it.
#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

#include "text/json_fields.h"
#include "text/normalizer.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace cadre::text {
namespace {

class Precompiled : public Normalizer {
 public:
  Status Read(const std::string& bytes, const std::string& where) {
    uint32_t trie_bytes = 0;
    if (bytes.size() < 4) return Fail(Code::kInvalidArgument, "{}: precompiled_charsmap is too short", where);
    std::memcpy(&trie_bytes, bytes.data(), 4);
    if (trie_bytes % 4 != 0 || trie_bytes == 0 || trie_bytes > bytes.size() - 4) {
      return Fail(Code::kInvalidArgument, "{}: precompiled_charsmap names a trie of {} bytes but has {}",
                  where, trie_bytes, bytes.size() - 4);
    }
    units_.resize(trie_bytes / 4);
    std::memcpy(units_.data(), bytes.data() + 4, trie_bytes);
    texts_ = bytes.substr(4 + trie_bytes);
    if (ValidUtf8Prefix(texts_) != texts_.size()) {
      return Fail(Code::kInvalidArgument, "{}: precompiled_charsmap has replacements that are not UTF-8",
                  where);
    }
    return {};
  }

  double growth() const override {
    size_t longest = 1;
    for (size_t begin = 0; begin < texts_.size();) {
      const size_t end = std::min(texts_.find('\0', begin), texts_.size());
      longest = std::max(longest, end - begin);
      begin = end + 1;
    }
    return static_cast<double>(longest);
  }

  void Apply(Normalized& text) const override {
    std::string out;
    out.reserve(text.text.size());
    const std::string_view in = text.text;
    size_t begin = 0;
    for (const size_t end : GraphemeEnds(in)) {
      AddCluster(in.substr(begin, end - begin), out);
      begin = end;
    }
    text.text = std::move(out);
  }

 private:
  void AddCluster(std::string_view cluster, std::string& out) const {
    if (cluster.size() < 6) {
      if (const auto found = Find(cluster)) {
        out += *found;
        return;
      }
    }
    for (size_t pos = 0; pos < cluster.size(); pos += Utf8Length(cluster[pos])) {
      const std::string_view point = cluster.substr(pos, Utf8Length(cluster[pos]));
      out += Find(point).value_or(point);
    }
  }

  // The replacement of the shortest entry that begins `key`.
  std::optional<std::string_view> Find(std::string_view key) const {
    uint64_t at = Children(units_[0]);
    for (const char c : key) {
      const auto label = static_cast<unsigned char>(c);
      if (label == 0) return std::nullopt;
      at ^= label;
      if (at >= units_.size()) return std::nullopt;
      const uint32_t unit = units_[at];
      if ((unit & 0x800000FFu) != label) return std::nullopt;
      at ^= Children(unit);
      if ((unit >> 8 & 1) == 0) continue;
      if (at >= units_.size()) return std::nullopt;
      const size_t begin = units_[at] & 0x7FFFFFFFu;
      if (begin >= texts_.size() || IsUtf8Tail(texts_[begin])) return std::nullopt;
      const size_t end = texts_.find('\0', begin);
      return std::string_view(texts_).substr(begin, end == texts_.npos ? end : end - begin);
    }
    return std::nullopt;
  }

  static uint64_t Children(uint32_t unit) { return uint64_t{unit >> 10} << ((unit & 0x200) >> 6); }

  std::vector<uint32_t> units_;
  std::string texts_;
};

int Base64Value(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  return c == '+' ? 62 : c == '/' ? 63 : -1;
}

std::optional<std::string> FromBase64(std::string_view text) {
  std::string bytes;
  uint32_t bits = 0;
  int num_bits = 0;
  while (text.ends_with('=')) text.remove_suffix(1);
  for (const char c : text) {
    const int value = Base64Value(c);
    if (value < 0) return std::nullopt;
    bits = bits << 6 | static_cast<uint32_t>(value);
    num_bits += 6;
    if (num_bits < 8) continue;
    num_bits -= 8;
    bytes += static_cast<char>(static_cast<unsigned char>(bits >> num_bits));
  }
  return bytes;
}

}  // namespace

Result<std::unique_ptr<Normalizer>> MakePrecompiled(const Json& json, const std::string& where) {
  CADRE_ASSIGN(const std::string base64, TextField(json, "precompiled_charsmap", "", where));
  if (base64.empty()) return nullptr;  // SentencePiece's "identity"
  const auto bytes = FromBase64(base64);
  if (!bytes) return Fail(Code::kInvalidArgument, "{}: precompiled_charsmap is not base64", where);
  auto normalizer = std::make_unique<Precompiled>();
  CADRE_TRY(normalizer->Read(*bytes, where));
  return normalizer;
}

}  // namespace cadre::text
