#pragma once
// A rank as a process of its own: what the child does, and what the parent must hand it.
//
// The parent starts the program again with the words `rank R` before its own command line, so that both read
// the same options, and with two descriptors: the link to the front, and the socket to the host's broker
// (fabric/broker.h).
#include "base/error.h"
#include "config/serve_options.h"

namespace cadre::deploy {

constexpr int kLinkFd = 3;    ///< in the child: serves link::ServeEngine on tensor-parallel rank 0
constexpr int kBrokerFd = 4;  ///< in the child: fabric::JoinHost

/// Runs rank `rank` until the front drains it or is gone. Errors: what kept it from starting, or who failed
/// it.
Status RunRank(const config::EngineOptions& options, int rank);

}  // namespace cadre::deploy
