#include "python/engine/errors.h"

namespace cadre::python {
namespace py = pybind11;
namespace {

const char* ClassOf(Code code) {
  switch (code) {
    case Code::kInvalidArgument:
      return "InvalidArgumentError";
    case Code::kNotFound:
      return "NotFoundError";
    case Code::kUnauthenticated:
      return "UnauthenticatedError";
    case Code::kUnsupported:
      return "UnsupportedError";
    case Code::kResourceExhausted:
      return "ResourceExhaustedError";
    case Code::kUnavailable:
      return "UnavailableError";
    case Code::kDeadlineExceeded:
      return "DeadlineExceededError";
    case Code::kCancelled:
      return "CancelledError";
    case Code::kDataLoss:
      return "DataLossError";
    case Code::kInternal:
      return "InternalError";
  }
  return "InternalError";
}

}  // namespace

py::object ExceptionOf(const Error& error) {
  return py::module_::import("cadre.errors").attr(ClassOf(error.code))(error.message, error.param);
}

void Raise(const Error& error) {
  const py::object value = ExceptionOf(error);
  PyErr_SetObject(py::type::of(value).ptr(), value.ptr());
  throw py::error_already_set();
}

}  // namespace cadre::python
