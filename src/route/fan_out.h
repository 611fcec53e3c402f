#pragma once
// One request to many workers at once, and their answers gathered.
#include <functional>
#include <memory>

#include "route/fleet.h"

namespace cadre::route {

struct WorkerAnswer {
  std::shared_ptr<Worker> worker;
  int status = 0;  ///< 0: no answer
  std::string body;
  std::string failure;  ///< why there is no answer
};

struct Question {
  std::string method, target, body;
  http::Headers headers;
  Duration timeout = std::chrono::seconds(10);
};

/// On an io thread of the server that the workers' clients share; `then` runs on the same one when the last
/// answer is there, at the latest after the time-out. An answer beyond 4 MiB counts as a failure.
void AskAll(const std::vector<std::shared_ptr<Worker>>& workers,
            const std::function<Question(size_t worker)>& question,
            std::function<void(std::vector<WorkerAnswer>)> then);

/// Whether a path is for all workers at once: weights, pausing, caches, profiling.
bool IsForAll(std::string_view path);

/// What the client of such a path gets: 200 if all workers say 2xx; the status that all agree on; else 502.
/// The members that all bodies agree on, and "workers": each one's status and body.
http::Response GatheredResponse(const std::vector<WorkerAnswer>& answers);

/// The model lists of all, each model once.
http::Response MergedModels(const std::vector<WorkerAnswer>& answers);

/// The body of /init_broadcaster for one of `count` workers: with its own server_rank, where the body has
/// one. Errors: kInvalidArgument for a body with a rank_offset, which only one worker can have.
Result<std::string> BroadcasterBody(const std::string& body, size_t worker, size_t count);

}  // namespace cadre::route
