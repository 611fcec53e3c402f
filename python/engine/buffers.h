#pragma once
// Memory of Python objects, through the buffer protocol: numpy arrays, array.array, memoryview, torch tensors
// by .numpy(). The extension knows no numpy, so it runs with every version.
#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace cadre::python {

/// A view that keeps the object alive; made and destroyed under the GIL. What it points to may be used
/// without.
class Buffer {
 public:
  Buffer(const pybind11::object& object, const char* name, bool writable);
  ~Buffer() { PyBuffer_Release(&view_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  std::byte* bytes() const { return static_cast<std::byte*>(view_.buf); }
  int64_t num_bytes() const { return view_.len; }

 protected:
  /// Errors: a TypeError that names the argument and says what was wanted.
  [[noreturn]] void Reject(const std::string& wanted) const;
  void Expect(const char* format_codes, int64_t item_bytes, const std::string& what) const;
  void ExpectShape(const std::vector<int64_t>& shape) const;

  const char* name_;
  Py_buffer view_ = {};
};

/// C-contiguous numbers. shape: -1 stands for any length.
template <typename T>
class Numbers : public Buffer {
 public:
  Numbers(const pybind11::object& object, const char* name, const std::vector<int64_t>& shape,
          bool writable = false)
      : Buffer(object, name, writable) {
    // Integers of one size have several codes; floats have one.
    if constexpr (std::is_floating_point_v<T>) {
      Expect("f", sizeof(T), "float32");
    } else {
      Expect("ilq", sizeof(T), sizeof(T) == 4 ? "int32" : "int64");
    }
    ExpectShape(shape);
  }
  T* data() const { return reinterpret_cast<T*>(bytes()); }
  int64_t dim(int axis) const { return view_.shape[axis]; }
};

using Floats = Numbers<float>;
using Ints = Numbers<int32_t>;

}  // namespace cadre::python
