#include "python/engine/buffers.h"

#include <cstring>

#include "base/format.h"

namespace cadre::python {
namespace py = pybind11;

Buffer::Buffer(const py::object& object, const char* name, bool writable) : name_(name) {
  const int flags = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0);
  if (PyObject_GetBuffer(object.ptr(), &view_, flags) == 0) return;
  PyErr_Clear();
  throw py::type_error(Format("{}: wanted {}memory of numbers without gaps (the buffer protocol), got {}",
                              name, writable ? "writable " : "",
                              std::string(py::str(py::type::of(object).attr("__name__")))));
}

void Buffer::Reject(const std::string& wanted) const {
  std::string shape;
  for (int i = 0; i < view_.ndim; ++i) shape += Format("{}{}", i == 0 ? "" : ", ", view_.shape[i]);
  const std::string text =
      Format("{}: wanted {}, got items of format '{}' and {} bytes in shape [{}]", name_, wanted,
             view_.format == nullptr ? "B" : view_.format, view_.itemsize, shape);
  throw py::type_error(text);
}

void Buffer::Expect(const char* format_codes, int64_t item_bytes, const std::string& what) const {
  const char* format = view_.format == nullptr ? "B" : view_.format;
  if (*format == '@' || *format == '=' || *format == '<') ++format;
  const bool fits = *format != 0 && format[1] == 0 && std::strchr(format_codes, *format) != nullptr;
  if (!fits || view_.itemsize != item_bytes) Reject(what);
}

void Buffer::ExpectShape(const std::vector<int64_t>& shape) const {
  bool fits = view_.ndim == static_cast<int>(shape.size());
  for (size_t i = 0; fits && i < shape.size(); ++i) fits = shape[i] < 0 || view_.shape[i] == shape[i];
  if (fits) return;
  std::string wanted;
  for (const int64_t n : shape) {
    wanted += wanted.empty() ? "" : ", ";
    wanted += n < 0 ? "any" : Format("{}", n);
  }
  Reject("shape [" + wanted + "]");
}

}  // namespace cadre::python
