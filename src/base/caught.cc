#include "base/caught.h"

#include <exception>
#include <new>

namespace cadre {

Error CaughtError() {
  try {
    throw;
  } catch (const std::bad_alloc&) {
    return {Code::kUnavailable, "there is not enough memory for this request now; try a smaller one", {}};
  } catch (const std::exception& caught) {
    return {
        Code::kInternal, Format("an internal error ended the request: {}", Excerpt(caught.what(), 300)), {}};
  } catch (...) {
    return {Code::kInternal, "an internal error ended the request", {}};
  }
}

}  // namespace cadre
