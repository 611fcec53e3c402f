// Flags of `cadre doctor` and `cadre bench step`.
#include "config/settings.h"

namespace cadre::config {
namespace {

using D = DoctorOptions;
constexpr Setting kDoctor[] = {
    Works(
        "peer", Type::kAppended, "", Into<&D::peers>,
        "Another host, HOST or HOST:PORT (port 29550 if unset): is it reached, how fast? May be given again. "
        "Latency and bandwidth are measured if `cadre doctor --listen PORT` runs there."),
    Works("listen", Type::kInt, "", Into<&D::listen>,
          "Answer the doctors of other hosts on this port instead, until interrupted.")
        .Range(1, 65535),
    Works("listen-address", Type::kString, "", Into<&D::listen_address>,
          "Listen at this address only; all interfaces if unset."),
    Works("listen-seconds", Type::kFloat, "", Into<&D::listen_seconds>, "Stop listening after this time.")
        .Range(0.1, 1e9),
    Works("timeout", Type::kFloat, "5", Into<&D::timeout_s>, "Seconds to wait for a peer's answer.")
        .Range(0.1, 600),
    Works("link", Type::kString, "all", Into<&D::link>, "Which links to measure between hosts.")
        .Choices("all,tcp,ucx"),
    Works("measure", Type::kBool, "true", Into<&D::measure>,
          "Measure memory bandwidth and product speed (about a second, 1 GiB of memory)."),
    Works("json", Type::kBool, "false", Into<&D::json>, "Print one JSON object."),
};

using P = BenchStepOptions;
constexpr Setting kStep[] = {
    Works("ranks", Type::kInt, "2", Into<&P::ranks>,
          "Data and expert parallel ranks; the one process beside them gets as many threads as they have "
          "together.")
        .Range(2, 64),
    Works("batches", Type::kString, "1,16,32", Into<&P::batches>,
          "Sequences at once, over all ranks; numbers with commas between."),
    Works("input-len", Type::kInt, "64", Into<&P::input_len>, "Tokens of each prompt.").Range(1),
    Works("output-len", Type::kInt, "24", Into<&P::output_len>, "Tokens of each answer; a decode step each.")
        .Range(2),
    Works("num-iters-warmup", Type::kInt, "1", Into<&P::num_iters_warmup>, "Rounds before the clock starts.")
        .Range(0),
    Works("num-iters", Type::kInt, "3", Into<&P::num_iters>, "Rounds measured; medians count.").Range(1),
    Works("json", Type::kString, "", Into<&P::json>, "Write a JSON object with all numbers here."),
};

}  // namespace

Group DoctorGroup() {
  return {"Doctor", "What is looked at", kDoctor};
}
Group BenchStepGroup() {
  return {"Step", "What is measured", kStep};
}

}  // namespace cadre::config
