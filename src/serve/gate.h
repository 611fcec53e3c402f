#pragma once
// What stands before every handler: keys, CORS, and headers that every response gets.
#include "serve/options.h"

namespace cadre::serve {

/// True if the path may be asked for with these headers. Paths under /v1, /v2 and /inference, those that
/// pause the engine or replace its weights, and those that tell what it holds, need a key if there are any.
/// Cost does not depend on how much of a key was right.
bool IsAuthorized(const ServeOptions& options, const http::Request& request);

/// Headers that CORS wants on the answer to a request with an Origin; empty if it has none or is not allowed.
http::Headers CorsHeaders(const CorsOptions& options, const http::Request& request);

/// The answer to a preflight (OPTIONS with Access-Control-Request-Method).
http::Response Preflight(const CorsOptions& options, const http::Request& request);

/// A writer that adds headers to whatever it sends.
std::shared_ptr<http::ResponseWriter> WithHeaders(std::shared_ptr<http::ResponseWriter> writer,
                                                  http::Headers headers);

}  // namespace cadre::serve
