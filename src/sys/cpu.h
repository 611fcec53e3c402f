#pragma once
// Which CPUs this process may use, and how they lie. `root` stands before each path ("" in use; a folder in
// tests).
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace cadre::sys {

/// "0-3,8,10-11" -> {0, 1, 2, 3, 8, 10, 11}, sorted, each once. The form of /sys and of
/// VLLM_CPU_OMP_THREADS_BIND. Errors: kInvalidArgument for other text, or numbers of 65536 and more.
Result<std::vector<int>> ParseCpuList(std::string_view text);
/// The inverse: {0, 1, 2, 5} -> "0-2,5".
std::string FormatCpuList(const std::vector<int>& cpus);

/// CPUs in this thread's affinity mask, rising; at least one.
std::vector<int> AllowedCpus();

/// How many CPUs' worth of time the control groups grant (v1 and v2, the tightest of the parents); 0: no
/// limit.
double CgroupCpuQuota(const std::string& root = "");

/// How many threads can run at once: the allowed CPUs, or the quota rounded up where that is smaller. At
/// least 1.
int UsableCpus();

/// One allowed CPU for each physical core (the lowest of its hyperthreads), rising.
std::vector<int> OneCpuPerCore(const std::vector<int>& allowed, const std::string& root = "");

/// The name in /proc/cpuinfo, or "unknown CPU".
std::string CpuModelName(const std::string& root = "");

/// Asks Linux for the right to use AMX tiles, for all threads of this process and until it ends (it is not
/// inherited by programs started). Errors: kUnsupported where the kernel is too old, or refuses.
Status RequestTileState();

struct NumaNode {
  int id = 0;
  std::vector<int> cpus;  ///< all of them, allowed or not
  int64_t memory_bytes = 0;
};
/// NUMA nodes, rising; one node with the allowed CPUs where the kernel reports none.
std::vector<NumaNode> NumaNodes(const std::string& root = "");

}  // namespace cadre::sys
