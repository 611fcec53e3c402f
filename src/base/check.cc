#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace cadre {

void CheckFailed(const char* file, int line, const char* condition) {
  std::fprintf(stderr, "cadre: internal check failed: %s (%s:%d). This is a bug in Cadre.\n", condition, file, line);
  std::fflush(stderr);
  std::abort();
}

}  // namespace cadre
