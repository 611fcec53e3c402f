#include "app/run.h"

namespace cadre::app {
namespace {

std::unexpected<Error> NotWired(const char* command) {
  return cadre::Fail(Code::kUnsupported, "cadre bench {} is not wired to an engine in this build", command);
}

Status RunLatency(const config::BenchLatencyOptions&) {
  return NotWired("latency");
}
Status RunThroughput(const config::BenchThroughputOptions&) {
  return NotWired("throughput");
}
Status RunServe(const config::BenchServeOptions&) {
  return NotWired("serve");
}

}  // namespace

int BenchLatency(Args args, const config::Environment& env) {
  return RunParsed(config::ParseBenchLatency, args, env, RunLatency);
}

int BenchThroughput(Args args, const config::Environment& env) {
  return RunParsed(config::ParseBenchThroughput, args, env, RunThroughput);
}

int BenchServe(Args args, const config::Environment& env) {
  return RunParsed(config::ParseBenchServe, args, env, RunServe);
}

}  // namespace cadre::app
