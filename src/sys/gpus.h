#pragma once
// Whether the machine has GPUs, by what its drivers show; nothing is loaded or asked. Cadre has no GPU
// kernels yet, so this is for messages.
#include <string>

namespace cadre::sys {

struct GpuFinding {
  int count = 0;
  std::string where;  ///< what was looked at: "/dev/nvidia0, /dev/nvidia1"; or where there would be something
};

/// NVIDIA's device nodes /dev/nvidiaN, and AMD's /dev/kfd (counted as one). `root` stands before each path
/// ("" in use; a folder in tests).
GpuFinding FindGpus(const std::string& root = "");

}  // namespace cadre::sys
