#include "app/out_of_memory.h"

#include <unistd.h>

#include <cstdlib>
#include <exception>
#include <new>
#include <string_view>

#include "app/exit_code.h"

namespace cadre::app {
namespace {

// A constant, and written without the log: both would ask for memory.
constexpr std::string_view kText =
    "error this process has run out of memory and ends; lower --gpu-memory-utilization or "
    "--kv-cache-memory-bytes, which leaves more for the rest, or --max-num-batched-tokens and "
    "--max-num-seqs, "
    "which makes steps smaller\n";

[[noreturn]] void Terminate() {
  try {
    if (const auto caught = std::current_exception()) std::rethrow_exception(caught);
  } catch (const std::bad_alloc&) {
    [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, kText.data(), kText.size());
    _exit(ExitCode(Code::kResourceExhausted));
  } catch (const std::exception& other) {
    const std::string_view what = other.what();
    [[maybe_unused]] ssize_t written = write(STDERR_FILENO, "uncaught: ", 10);
    written = write(STDERR_FILENO, what.data(), what.size());
    written = write(STDERR_FILENO, "\n", 1);
  } catch (...) {
  }
  std::abort();
}

}  // namespace

void EndByNameWhenOutOfMemory() {
  std::set_terminate(Terminate);
}

}  // namespace cadre::app
