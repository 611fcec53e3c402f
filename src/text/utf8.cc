#include "text/utf8.h"

#include <cstdint>
#include <cstring>

namespace cadre::text {

Utf8Unit ScanUtf8(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {Utf8State::kWhole, 1};
  if (lead < 0xC2 || lead > 0xF4) return {Utf8State::kInvalid, 1};
  // The second byte's range keeps out overlong forms, surrogates and what lies past U+10FFFF.
  const unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  const size_t length = Utf8Length(text[0]);
  for (size_t i = 1; i < length; ++i) {
    if (i == text.size()) return {Utf8State::kPartial, i};
    if (byte(i) < (i == 1 ? low : 0x80) || byte(i) > (i == 1 ? high : 0xBF)) return {Utf8State::kInvalid, i};
  }
  return {Utf8State::kWhole, length};
}

bool IsOnePoint(std::string_view text) {
  return !text.empty() && Utf8Length(text[0]) == text.size();
}

void AppendUtf8(std::string& out, char32_t cp) {
  const auto put = [&](char32_t bits) { out += static_cast<char>(static_cast<unsigned char>(bits)); };
  if (cp < 0x80) {
    put(cp);
  } else if (cp < 0x800) {
    put(0xC0 | cp >> 6);
    put(0x80 | (cp & 0x3F));
  } else if (cp < 0x10000) {
    put(0xE0 | cp >> 12);
    put(0x80 | (cp >> 6 & 0x3F));
    put(0x80 | (cp & 0x3F));
  } else {
    put(0xF0 | cp >> 18);
    put(0x80 | (cp >> 12 & 0x3F));
    put(0x80 | (cp >> 6 & 0x3F));
    put(0x80 | (cp & 0x3F));
  }
}

size_t ValidUtf8Prefix(std::string_view text) {
  size_t pos = 0;
  while (pos < text.size()) {
    uint64_t eight;
    if (text.size() - pos >= sizeof(eight)) {
      std::memcpy(&eight, text.data() + pos, sizeof(eight));
      if ((eight & 0x8080808080808080u) == 0) {
        pos += sizeof(eight);
        continue;
      }
    }
    const Utf8Unit unit = ScanUtf8(text.substr(pos));
    if (unit.state != Utf8State::kWhole) break;
    pos += unit.length;
  }
  return pos;
}

void Utf8Repair::Push(std::string_view bytes, std::string& out) {
  while (!partial_.empty() && !bytes.empty()) {
    partial_ += bytes.front();
    const Utf8Unit unit = ScanUtf8(partial_);
    if (unit.state == Utf8State::kInvalid) {
      partial_.clear();
      out += kReplacementText;  // the byte that came was not part of it: looked at again below
    } else {
      bytes.remove_prefix(1);
      if (unit.state == Utf8State::kWhole) {
        out += partial_;
        partial_.clear();
      }
    }
  }
  while (!bytes.empty()) {
    const size_t valid = ValidUtf8Prefix(bytes);
    out += bytes.substr(0, valid);
    bytes.remove_prefix(valid);
    if (bytes.empty()) return;
    const Utf8Unit unit = ScanUtf8(bytes);
    if (unit.state == Utf8State::kPartial) {
      partial_ = bytes;
      return;
    }
    out += kReplacementText;
    bytes.remove_prefix(unit.length);
  }
}

void Utf8Repair::Finish(std::string& out) {
  if (!partial_.empty()) out += kReplacementText;
  partial_.clear();
}

std::string RepairUtf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  Utf8Repair repair;
  repair.Push(text, out);
  repair.Finish(out);
  return out;
}

}  // namespace cadre::text
