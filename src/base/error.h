#pragma once
// Errors are values. The caller or the world erred: Result<T>. We erred: CADRE_CHECK (check.h).
// No exception crosses a room. A message says what was wanted, what was found, where, and what to do.
#include <expected>
#include <string>
#include <string_view>
#include <utility>

#include "base/format.h"

namespace cadre {

/// What kind of failure it is. HTTP status, exit code and Python exception follow from it, one table each.
enum class Code {
  kInvalidArgument,    ///< the request, flag or file asks for something that makes no sense
  kNotFound,           ///< the thing named does not exist
  kUnauthenticated,    ///< missing or wrong credentials
  kUnsupported,        ///< makes sense, but Cadre does not do it
  kResourceExhausted,  ///< a queue, the memory or a limit is full; later it may work
  kUnavailable,        ///< not ready, draining, or a needed peer is gone
  kDeadlineExceeded,   ///< a wait ended without its event
  kCancelled,          ///< the caller went away
  kDataLoss,           ///< a file or message is damaged
  kInternal,           ///< a fault of ours that was contained
};

/// The name of a code, as logs print it: "invalid_argument", ...
const char* CodeName(Code code);

struct Error {
  Code code = Code::kInternal;
  std::string message;  ///< one or two sentences for a person
  std::string param;    ///< the flag, key or JSON field at fault, if one is; else empty
};

/// Foreign text as messages show it: at most `max_bytes` of it, cut between code points, then an ellipsis.
std::string Excerpt(std::string_view text, size_t max_bytes = 100);

template <typename T>
using Result = std::expected<T, Error>;
using Status = Result<void>;

/// return Fail(Code::kNotFound, "no file '{}'; looked in {}", name, folder);
template <typename... Args>
std::unexpected<Error> Fail(Code code, fmt::format_string<Args...> pattern, Args&&... args) {
  return std::unexpected(Error{code, fmt::format(pattern, std::forward<Args>(args)...), {}});
}

/// As Fail, and names the parameter at fault.
template <typename... Args>
std::unexpected<Error> FailParam(Code code, std::string param, fmt::format_string<Args...> pattern, Args&&... args) {
  return std::unexpected(Error{code, fmt::format(pattern, std::forward<Args>(args)...), std::move(param)});
}

}  // namespace cadre

/// Leaves the function with the error of `expr` (a Result or Status) if it has one.
#define CADRE_TRY(expr)                                                              \
  do {                                                                               \
    if (auto cadre_try_status = (expr); !cadre_try_status.has_value())               \
      return std::unexpected(std::move(cadre_try_status).error());                   \
  } while (false)

#define CADRE_CONCAT_INNER(a, b) a##b
#define CADRE_CONCAT(a, b) CADRE_CONCAT_INNER(a, b)

/// CADRE_ASSIGN(auto config, LoadConfig(path)); declares or assigns the value, or leaves with the error.
#define CADRE_ASSIGN(target, expr) CADRE_ASSIGN_INNER(CADRE_CONCAT(cadre_result_, __LINE__), target, expr)
#define CADRE_ASSIGN_INNER(result, target, expr)                            \
  auto result = (expr);                                                     \
  if (!result.has_value()) return std::unexpected(std::move(result).error()); \
  target = std::move(*result)
