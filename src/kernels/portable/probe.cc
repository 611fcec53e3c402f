#include "kernels/probe_kernels.h"

namespace cadre::kernels::portable {
namespace {

constexpr int kLanes = 48;  // independent chains for every vector width that the compiler may choose

uint64_t Read(const std::byte* data, int64_t num_bytes, int64_t ahead) {
  const auto* words = reinterpret_cast<const uint64_t*>(data);
  uint64_t any[8] = {};
  for (int64_t i = 0; i < num_bytes / 8; i += 8) {
    if (ahead > 0) __builtin_prefetch(words + i + ahead / 8);
    for (int j = 0; j < 8; ++j) any[j] |= words[i + j];
  }
  uint64_t all = 0;
  for (const uint64_t word : any) all |= word;
  return all;
}

int64_t Products(int64_t rounds) {
  float sums[kLanes];
  for (int i = 0; i < kLanes; ++i) sums[i] = static_cast<float>(i);
  float factor = 0.5f, term = 1.0f;
  for (int64_t round = 0; round < rounds; ++round) {
    __asm__ volatile("" : "+x"(factor), "+x"(term));  // nothing may be worked out in advance
    for (int i = 0; i < kLanes; ++i) sums[i] = sums[i] * factor + term;
  }
  __asm__ volatile("" : : "r"(sums) : "memory");
  return rounds * kLanes * 2;
}

}  // namespace

const ProbeKernels kProbeKernels = {.read = Read, .bf16_products = Products, .f32_products = Products};

}  // namespace cadre::kernels::portable
