#pragma once
// Counter-based random numbers: the value depends on (seed, stream, counter) alone, so that neither the layout of
// ranks nor the company in a batch can change what a request draws.
// Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC'11), Philox4x32-10.
#include <array>
#include <cstdint>

namespace cadre {

/// Four independent 32-bit words for one counter. Cost: ten rounds of two multiplications.
std::array<uint32_t, 4> Philox(uint64_t seed, uint64_t stream, uint64_t counter);

/// Uniform in [0, 1) with 53 bits, from Philox(seed, stream, counter).
double UniformAt(uint64_t seed, uint64_t stream, uint64_t counter);

/// A seed from the operating system, for requests that bring none.
uint64_t EntropySeed();

}  // namespace cadre
