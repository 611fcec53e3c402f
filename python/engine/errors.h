#pragma once
// Errors as values become Python exceptions here: the classes of cadre/errors.py, one for each Code.
#include <pybind11/pybind11.h>

#include "base/error.h"

namespace cadre::python {

/// The exception of error.code, not raised. Needs the GIL.
pybind11::object ExceptionOf(const Error& error);

/// Throws the exception of error.code (pybind11's error_already_set). Needs the GIL.
[[noreturn]] void Raise(const Error& error);

inline void RaiseIf(const Status& status) {
  if (!status) Raise(status.error());
}
template <typename T>
T ValueOrRaise(Result<T> result) {
  if (!result) Raise(result.error());
  return std::move(*result);
}

}  // namespace cadre::python
