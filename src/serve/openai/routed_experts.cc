// The experts of an answer's tokens, in the two forms that trainers read.
#include <algorithm>
#include <string_view>

#include "serve/openai/answer.h"

namespace cadre::serve {
namespace {

std::string Base64(std::string_view bytes) {
  static constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t left = std::min<size_t>(3, bytes.size() - i);
    uint32_t group = 0;
    for (size_t k = 0; k < 3; ++k)
      group = group << 8 | (k < left ? static_cast<unsigned char>(bytes[i + k]) : 0u);
    for (size_t k = 0; k < 4; ++k) out += k <= left ? kDigits[group >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

int64_t NumRows(const engine::RoutedExperts& routed) {
  const int64_t width = int64_t{routed.num_layers} * routed.top_k;
  return width == 0 ? 0 : static_cast<int64_t>(routed.experts.size()) / width;
}

// In C order, a byte each while that is enough.
std::string RawBytes(const engine::RoutedExperts& routed, bool wide) {
  std::string raw;
  raw.reserve(routed.experts.size() * (wide ? 2 : 1));
  for (const uint16_t expert : routed.experts) {
    raw += static_cast<char>(expert & 0xff);
    if (wide) raw += static_cast<char>(expert >> 8);
  }
  return raw;
}

bool IsWide(const engine::RoutedExperts& routed) {
  return std::ranges::any_of(routed.experts, [](uint16_t expert) { return expert > 255; });
}

}  // namespace

void AppendRoutedObject(std::string& out, const engine::RoutedExperts& routed) {
  if (routed.top_k == 0) {
    out += "null";
    return;
  }
  const bool wide = IsWide(routed);
  out += Format("{{\"data\":\"{}\",\"shape\":[{},{},{}],\"start\":{},\"dtype\":\"{}\"}}",
                Base64(RawBytes(routed, wide)), NumRows(routed), routed.num_layers, routed.top_k,
                routed.start, wide ? "uint16" : "uint8");
}

// numpy's format 1.0: magic, version, length of a head that is padded so that the data begin at a multiple
// of 64.
void AppendRoutedNpy(std::string& out, const engine::RoutedExperts& routed) {
  if (routed.top_k == 0) {
    out += "null";
    return;
  }
  constexpr size_t kPrefix = 10;
  const bool wide = IsWide(routed);
  std::string head = Format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}, {}, {}), }}",
                            wide ? "<u2" : "|u1", NumRows(routed), routed.num_layers, routed.top_k);
  head.append(63 - (kPrefix + head.size()) % 64, ' ');
  head += '\n';
  std::string file("\x93NUMPY\x01\x00", 8);
  file += static_cast<char>(head.size() & 0xff);
  file += static_cast<char>(head.size() >> 8);
  out += '"' + Base64(file + head + RawBytes(routed, wide)) + '"';
}

}  // namespace cadre::serve
