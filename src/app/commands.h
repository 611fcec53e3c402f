#pragma once
// The commands of the program. Each takes the words after its name and returns the exit status.
#include <span>
#include <string>

#include "config/environment.h"
#include "config/parse.h"

namespace cadre::app {

using Args = std::span<const std::string>;

int Serve(Args args, const config::Environment& env);
int Generate(Args args, const config::Environment& env);
int Inspect(Args args, const config::Environment& env);
int BenchLatency(Args args, const config::Environment& env);
int BenchThroughput(Args args, const config::Environment& env);
int BenchEplb(Args args, const config::Environment& env);
int BenchStep(Args args, const config::Environment& env);
int Doctor(Args args, const config::Environment& env);
int BenchA2a(Args args, const config::Environment& env);
int BenchServe(Args args, const config::Environment& env);
int Demo(Args args, const config::Environment& env);
int Plan(Args args, const config::Environment& env);
int Router(Args args, const config::Environment& env);
int Rl(Args args, const config::Environment& env);
int Inference(Args args, const config::Environment& env);

/// One rank of a deployment, started by it: the rank's number, then the words of the command that it belongs
/// to. Not for people.
int RunAcceptor(Args args, const config::Environment& env);
int RunRank(Args args, const config::Environment& env);

/// The whole program: picks the command and runs it. `args` are the words after the program's name.
int RunCommand(Args args, const config::Environment& env);
/// What is still buffered for standard output goes there; a full disk is an error with its own exit status.
int FlushOutput();

/// Sets up the log from the options and says the notices.
void StartLog(const std::string& level, bool color, std::span<const config::Notice> notices);

}  // namespace cadre::app
