#pragma once
// What an operation needs to run: which kernels, and the threads that run them in order.
#include "kernels/isa.h"
#include "sys/threads.h"

namespace cadre::kernels {

/// Cheap to copy; passed by const reference to every operation. `pool` is owned by the rank; null means the calling
/// thread alone.
struct Device {
  Isa isa = Isa::kPortable;
  sys::ThreadPool* pool = nullptr;
};

}  // namespace cadre::kernels
