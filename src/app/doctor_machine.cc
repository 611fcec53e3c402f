// CPU, memory and limits of this machine.
#include <algorithm>

#include "app/doctor.h"
#include "fabric/host_link.h"
#include "kernels/isa.h"
#include "kernels/probe.h"
#include "sys/cpu.h"
#include "sys/limits.h"
#include "sys/memory.h"
#include "sys/shared_memory.h"
#include "sys/threads.h"

namespace cadre::app {
namespace {

Finding Cores(const std::string& root) {
  const std::vector<int> allowed = sys::AllowedCpus();
  const auto cores = sys::OneCpuPerCore(allowed, root);
  const double quota = sys::CgroupCpuQuota(root);
  const int usable = sys::UsableCpus();
  Finding f{.section = "cpu",
            .name = "cores",
            .flags =
                "--data-parallel-size-local, --threads, "
                "VLLM_CPU_OMP_THREADS_BIND"};
  f.value =
      Format("{} CPUs allowed ({}) on {} cores", allowed.size(), sys::FormatCpuList(allowed), cores.size());
  if (quota > 0) f.value += Format(", control group grants {:.1f}", quota);
  const int threads = std::min(usable, static_cast<int>(cores.size()));
  f.meaning = Format(
      "Up to {} ranks on this host have a core of their own; more run, but share and sleep instead "
      "of spinning.",
      threads);
  if (quota > 0 && quota < static_cast<double>(cores.size())) {
    f.level = Level::kWarning;
    f.meaning +=
        " The quota is below the cores allowed: threads that spin are throttled; give the container "
        "whole CPUs (cpuset).";
  }
  f.data = Json::Object{{"allowed", static_cast<int64_t>(allowed.size())},
                        {"physical_cores", static_cast<int64_t>(cores.size())},
                        {"quota", quota},
                        {"usable", usable}};
  return f;
}

Finding InstructionSets(const std::string& root) {
  std::vector<std::string> here, also;
  for (const kernels::Isa isa : kernels::SupportedIsas()) here.emplace_back(kernels::IsaName(isa));
  const std::vector<std::string> flags = sys::CpuFlags(root);
  const auto has = [&](const char* flag) { return std::ranges::find(flags, flag) != flags.end(); };
  for (const char* flag : {"avx512_vnni", "avx_vnni", "amx_bf16", "amx_int8", "amx_tile", "asimd", "sve"}) {
    const bool used = kernels::IsaSupported(kernels::Isa::kAmx) && std::string_view(flag) != "amx_int8" &&
                      std::string_view(flag).starts_with("amx");
    if (has(flag) && !used) also.emplace_back(flag);
  }
  const kernels::Isa best = kernels::BestIsa();
  Finding f{.section = "cpu", .name = "instruction sets", .flags = "CADRE_ISA"};
  f.value = Format("{}; the best is {}", Joined(here), kernels::IsaName(best));
  if (!also.empty()) f.value += "; the CPU also has " + Joined(also);
  f.meaning = Format("Kernels for {} run unless CADRE_ISA says otherwise; all ranks must use one.",
                     kernels::IsaName(best));
  if (best == kernels::Isa::kPortable) {
    f.level = Level::kWarning;
    f.meaning = "Neither AVX2 nor AVX-512: the portable kernels run, several times slower.";
  }
  if (has("amx_bf16") && !kernels::IsaSupported(kernels::Isa::kAmx)) {
    const Status granted = sys::RequestTileState();
    f.level = Level::kWarning;
    f.meaning += " AMX is not used: " +
                 (granted ? "its kernels also want AVX-512 with VBMI" : granted.error().message) + ".";
  }
  Json sets = Json::Array();
  for (const std::string& name : here) sets.Push(name);
  f.data = Json::Object{{"supported", std::move(sets)}, {"best", kernels::IsaName(best)}};
  return f;
}

Finding Numa(const std::string& root) {
  const auto nodes = sys::NumaNodes(root);
  Finding f{
      .section = "cpu", .name = "NUMA", .flags = "VLLM_CPU_OMP_THREADS_BIND, --data-parallel-size-local"};
  Json list = Json::Array();
  for (const sys::NumaNode& node : nodes) {
    f.value +=
        Format("{}node {}: CPUs {}", f.value.empty() ? "" : "; ", node.id, sys::FormatCpuList(node.cpus));
    if (node.memory_bytes > 0) f.value += ", " + sys::FormatBytes(node.memory_bytes);
    list.Push(Json::Object{
        {"id", node.id}, {"cpus", sys::FormatCpuList(node.cpus)}, {"memory_bytes", node.memory_bytes}});
  }
  f.meaning =
      nodes.size() > 1
          ? Format(
                "One rank or more for each of the {} nodes keeps weights in near memory: make the local "
                "ranks a multiple of {}.",
                nodes.size(), nodes.size())
          : "All memory is equally near.";
  f.data = Json::Object{{"nodes", std::move(list)}};
  return f;
}

Finding Memory(const std::string& root) {
  // Below this not even the demo model and its KV pool start.
  constexpr int64_t kLeast = int64_t{512} << 20;
  Finding f{.section = "memory",
            .name = "memory",
            .flags = "--gpu-memory-utilization, --kv-cache-memory-bytes, VLLM_CPU_KVCACHE_SPACE"};
  const auto info = sys::ReadMemoryInfo(root);
  if (!info) {
    f.level = Level::kBlocks;
    f.value = info.error().message;
    f.meaning = "The memory plan cannot be checked; mount /proc.";
    return f;
  }
  f.value = Format("{} free of {} (limited by {})", sys::FormatBytes(info->available()),
                   sys::FormatBytes(info->total()), info->limited_by);
  f.meaning =
      "Weights, KV cache and exchange buffers of all local ranks must fit; `cadre inspect MODEL` prints the "
      "plan for a model.";
  if (info->available() < kLeast) {
    f.level = Level::kBlocks;
    f.meaning = Format("Less than {} is free: no model starts. End other processes or raise {}.",
                       sys::FormatBytes(kLeast), info->limited_by);
  }
  f.data = Json::Object{{"total_bytes", info->total()},
                        {"available_bytes", info->available()},
                        {"limited_by", info->limited_by}};
  return f;
}

Finding HugePages(const std::string& root) {
  const sys::HugePageInfo info = sys::ReadHugePages(root);
  Finding f{.section = "memory", .name = "huge pages"};
  f.value = info.transparent.empty() ? "none in this kernel"
                                     : Format("transparent: {}, for shared memory: {}", info.transparent,
                                              info.shared.empty() ? "unknown" : info.shared);
  if (info.reserved > 0) f.value += Format("; {} reserved (not used)", info.reserved);
  if (info.transparent == "always" || info.transparent == "madvise") {
    f.meaning = "Weights and KV cache get pages of 2 MiB.";
  } else {
    f.level = Level::kWarning;
    f.meaning =
        "Weights lie on pages of 4 KiB, which costs some percent of bandwidth: echo madvise > "
        "/sys/kernel/mm/transparent_hugepage/enabled";
  }
  f.data =
      Json::Object{{"transparent", info.transparent}, {"shared", info.shared}, {"reserved", info.reserved}};
  return f;
}

Finding SharedMemory() {
  const sys::ShmInfo shm = sys::ReadShm();
  Finding f{.section = "memory", .name = "shared memory"};
  f.value = shm.bytes > 0 ? Format("/dev/shm {} ({} free)", sys::FormatBytes(shm.bytes),
                                   sys::FormatBytes(shm.free_bytes))
                          : "/dev/shm is not mounted";
  f.meaning =
      "Its size is no limit: ranks share memory without names (memfd), which counts as memory of their "
      "control group. Docker's --shm-size and --ipc=host are not needed.";
  const auto segment = sys::CreateSegment("cadre-doctor", 1 << 16, false);
  if (!segment) {
    f.level = Level::kBlocks;
    f.meaning = Format("Ranks cannot share memory: {}. Is memfd_create forbidden by a seccomp profile?",
                       segment.error().message);
  }
  f.data = Json::Object{{"bytes", shm.bytes}, {"free_bytes", shm.free_bytes}, {"memfd", segment.has_value()}};
  return f;
}

std::string LimitText(int64_t limit) {
  return limit < 0 ? "unlimited" : Format("{}", limit);
}

void Limits(bool rdma, Findings& findings) {
  const sys::UserLimits limits = sys::ReadUserLimits();
  // A connection a client, some tens of descriptors a rank; a shell's 1024 is enough for small deployments.
  Finding files{
      .section = "limits", .name = "open files", .value = LimitText(limits.open_files), .flags = "ulimit -n"};
  files.meaning = "Bounds clients at once and ranks on this host.";
  if (limits.open_files >= 0 && limits.open_files < 4096) {
    files.level = limits.open_files < 256 ? Level::kBlocks : Level::kWarning;
    files.meaning =
        "Too few for many clients or ranks: raise it (ulimit -n 65536, or LimitNOFILE in a systemd unit).";
  }
  files.data = Json::Object{{"limit", limits.open_files}};
  findings.push_back(std::move(files));
  Finding locked{.section = "limits", .name = "locked memory", .flags = "ulimit -l"};
  locked.value = limits.locked_bytes < 0 ? "unlimited" : sys::FormatBytes(limits.locked_bytes);
  locked.meaning = "Needed by RDMA only, and there is none here.";
  if (rdma) {
    locked.meaning = "Enough for RDMA.";
    if (limits.locked_bytes >= 0) {
      locked.level = Level::kWarning;
      locked.meaning =
          "RDMA pins the exchange's buffers: set it to unlimited (ulimit -l unlimited, docker "
          "--ulimit memlock=-1, LimitMEMLOCK=infinity).";
    }
  }
  locked.data = Json::Object{{"limit_bytes", limits.locked_bytes}};
  findings.push_back(std::move(locked));
  Finding processes{
      .section = "limits", .name = "processes", .value = LimitText(limits.processes), .flags = "ulimit -u"};
  processes.meaning = "Ranks and their threads count.";
  if (limits.processes >= 0 && limits.processes < 512) {
    processes.level = Level::kWarning;
    processes.meaning = "Threads of several ranks may not fit: raise it (ulimit -u).";
  }
  processes.data = Json::Object{{"limit", limits.processes}};
  findings.push_back(std::move(processes));
}

Finding Rates() {
  Finding f{.section = "cpu", .name = "speed"};
  sys::ThreadPool pool({.num_threads = sys::UsableCpus()});
  const kernels::Isa isa = kernels::BestIsa();
  const auto rates = kernels::MeasureRates({.isa = isa, .pool = &pool}, DType::kBf16);
  if (!rates) {
    f.level = Level::kWarning;
    f.value = "not measured: " + rates.error().message;
    f.meaning = "Leave it out with --no-measure.";
    return f;
  }
  f.value = Format("reads {:.1f} GB/s, bf16 products {:.0f} GFLOP/s ({} threads, {})",
                   rates->read_bytes_per_s / 1e9, rates->operations_per_s / 1e9, pool.num_threads(),
                   kernels::IsaName(isa));
  f.meaning = Format(
      "A step of one sequence takes 1 s for each {:.0f} GB of active weights at best; `cadre bench "
      "latency MODEL` compares a model with that.",
      rates->read_bytes_per_s / 1e9);
  f.data = Json::Object{{"read_bytes_per_second", rates->read_bytes_per_s},
                        {"operations_per_second", rates->operations_per_s},
                        {"threads", pool.num_threads()}};
  return f;
}

}  // namespace

void ExamineMachine(const config::DoctorOptions& options, const std::string& root, Findings& findings) {
  const std::string cpu = sys::CpuModelName(root);
  findings.push_back({.section = "cpu", .name = "model", .value = cpu, .data = Json::Object{{"name", cpu}}});
  findings.push_back(Cores(root));
  findings.push_back(InstructionSets(root));
  findings.push_back(Numa(root));
  if (options.measure) findings.push_back(Rates());
  findings.push_back(Memory(root));
  findings.push_back(HugePages(root));
  findings.push_back(SharedMemory());
  Limits(fabric::HasRdma(), findings);
}

}  // namespace cadre::app
