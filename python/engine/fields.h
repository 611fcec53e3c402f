#pragma once
// Members of a Python dict as C++ values, with a TypeError that names the member.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>

#include "base/error.h"

namespace cadre::python {

class Fields {
 public:
  explicit Fields(pybind11::dict dict) : dict_(std::move(dict)) {}

  /// Reads the member into `field` if it is there and not None. `wanted`: "a number", for the error.
  template <typename T>
  void Read(const char* name, const char* wanted, T& field) const {
    const auto value = Find(name);
    if (value.is_none()) return;
    try {
      field = value.template cast<T>();
    } catch (const pybind11::cast_error&) {
      Reject(name, wanted, value);
    }
  }
  template <typename T>
  void Read(const char* name, const char* wanted, std::optional<T>& field) const {
    if (!Find(name).is_none()) Read(name, wanted, field.emplace());
  }

 private:
  pybind11::object Find(const char* name) const {
    return dict_.contains(name) ? pybind11::object(dict_[name]) : pybind11::none();
  }
  [[noreturn]] static void Reject(const char* name, const char* wanted, const pybind11::object& value) {
    throw pybind11::type_error(
        Format("{} is {}; it takes {}", name, Excerpt(std::string(pybind11::repr(value))), wanted));
  }

  const pybind11::dict dict_;
};

}  // namespace cadre::python
