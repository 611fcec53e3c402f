#pragma once
// The tables of settings and who uses them.
#include <array>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "config/setting.h"

namespace cadre::config {

enum class Command {
  kServe,
  kGenerate,
  kInspect,
  kBenchLatency,
  kBenchThroughput,
  kBenchServe,
  kBenchA2a,
  kBenchEplb,
  kBenchStep,
  kDoctor,
  kDemo,
  kRouter,
  kPlan
};
inline constexpr std::array kAllCommands = {Command::kServe,
                                            Command::kGenerate,
                                            Command::kInspect,
                                            Command::kBenchLatency,
                                            Command::kBenchThroughput,
                                            Command::kBenchServe,
                                            Command::kBenchA2a,
                                            Command::kBenchEplb,
                                            Command::kBenchStep,
                                            Command::kDoctor,
                                            Command::kDemo,
                                            Command::kRouter,
                                            Command::kPlan};

/// "serve", "bench latency", ...
std::string_view CommandName(Command command);

/// The groups of a command, in the order of --help.
const std::vector<Group>& GroupsOf(Command command);

/// The row with this exact name, alias or older spelling, dashes only; nullptr if there is none.
const Setting* FindSetting(Command command, std::string_view name);

/// Members of the JSON options whose members are known.
std::span<const JsonKey> JsonKeys();
std::vector<const JsonKey*> JsonKeysOf(std::string_view option);
const JsonKey* FindJsonKey(std::string_view option, std::string_view key);

// The groups, one function a file; each span lives as long as the program.
std::vector<Group> ModelGroups();
std::vector<Group> ParallelGroups();
std::vector<Group> MemoryGroups();
std::vector<Group> FrontGroups();
std::vector<Group> AbsentGroups();
std::vector<Group> CadreGroups();
Group LoraGroup();
Group GenerateGroup();
Group InspectGroup();
Group BenchLatencyGroup();
Group BenchThroughputGroup();
std::vector<Group> BenchServeGroups();
Group BenchA2aGroup();
Group BenchEplbGroup();
Group DemoGroup();
Group BenchStepGroup();
Group DoctorGroup();
std::vector<Group> RouterGroups();
Group PlanGroup();

/// Of a JSON option whose members have rows of their own (JsonKey), which fill the fields.
inline void TakenByMembers(const Targets&, const Json&) {}

// Reasons that several rows share.
/// The exchanges that are built.
inline constexpr std::string_view kAll2AllBuilt =
    "allgather_reducescatter,deepep_high_throughput,deepep_low_latency,deepep_v2,flashinfer_all2allv,"
    "flashinfer_nvlink_one_sided,flashinfer_nvlink_two_sided,mori,mori_high_throughput,mori_low_latency,"
    "naive,nixl_ep,pplx";
inline constexpr std::string_view kNoGraphs =
    "There are no CUDA graphs and no compiler here: every step runs eagerly on the CPU.";
inline constexpr std::string_view kNoGpuKernels =
    "It chooses among GPU kernels; here the kernels follow the CPU's instruction set (CADRE_ISA).";
inline constexpr std::string_view kNoPython =
    "No Python is run and no code of a model is loaded: the architectures are built in.";
inline constexpr std::string_view kNoDownloads =
    "Nothing is downloaded: models are folders or lie in the local Hugging Face cache.";
inline constexpr std::string_view kNoMamba = "Models with Mamba or linear-attention layers are not built.";
inline constexpr std::string_view kNoVision =
    "Images, audio and video are not built: Cadre serves language models only.";
inline constexpr std::string_view kNoVisionTuning = "It tunes images, audio and video, which are not built.";
inline constexpr std::string_view kNoExpertLora =
    "LoRA on experts is not built; merge the adapter into the checkpoint instead.";
inline constexpr std::string_view kNoLoraBench =
    "Measuring with LoRA adapters is not built; leave the flag out.";
inline constexpr std::string_view kNoSpeculation = "Speculative decoding is not built; leave the flag out.";
inline constexpr std::string_view kLaterTools =
    "Parsing tool calls and reasoning out of answers comes later; tools are rendered by the chat template "
    "and the raw text comes back.";
inline constexpr std::string_view kNoSleep =
    "Sleeping and waking up are not built; /pause stops a server's steps and /update_weights replaces its "
    "weights.";
inline constexpr std::string_view kOneTransport =
    "Ranks talk over shared memory in a host and over TCP or UCX between hosts; no NCCL or GPU transport is "
    "used.";

}  // namespace cadre::config
