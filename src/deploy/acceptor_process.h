#pragma once
// One of several API servers as a process of its own: tokenizer, template, HTTP threads, and a connection to
// every rank. It holds nothing that others need, so one that dies is started anew (acceptors.h).
#include "config/serve_options.h"

namespace cadre::deploy {

/// Serves as the acceptor of that number until the parent stops it or is gone. The parent hears of errors and
/// logs them.
Status RunAcceptor(const config::ServeOptions& options, int number);

}  // namespace cadre::deploy
