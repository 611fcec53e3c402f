#pragma once
// Static functions of the lane structs are always inlined, so that no copy of one compiled for a wide
// instruction set is left for the linker to choose.

#define CADRE_INLINE static inline __attribute__((always_inline))
