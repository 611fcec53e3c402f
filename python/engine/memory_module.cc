#include "python/engine/memory_module.h"

#include <pybind11/stl.h>
#include <unistd.h>

#include "fabric/remote_memory.h"
#include "python/engine/buffers.h"
#include "python/engine/errors.h"

namespace cadre::python {
namespace py = pybind11;
namespace {

// In a process that was forked the owner's thread does not run, and locks may be held for ever: what was the
// parent's is left alone there.
class Parent {
 public:
  bool is_this() const { return getpid() == pid_; }

 private:
  pid_t pid_ = getpid();
};

// The Python object's memory is let go after it can no longer be read.
struct Mapped {
  Parent parent;
  std::unique_ptr<Buffer> buffer;
  std::unique_ptr<fabric::MappedMemory> memory;

  Mapped() = default;
  Mapped(const Mapped&) = delete;
  Mapped& operator=(const Mapped&) = delete;
  ~Mapped() {
    if (parent.is_this()) {
      memory.reset();
    } else {
      [[maybe_unused]] auto* const left = memory.release();
    }
  }
};

struct Owner {
  Parent parent;
  std::shared_ptr<fabric::MemoryOwner> owner;  // null after close
  std::string port;

  Owner() = default;
  Owner(const Owner&) = delete;
  Owner& operator=(const Owner&) = delete;
  ~Owner() { Close(); }
  void Close() {
    auto held = std::make_unique<std::shared_ptr<fabric::MemoryOwner>>(std::move(owner));
    owner = nullptr;
    if (!parent.is_this()) {
      [[maybe_unused]] auto* const left = held.release();
      return;
    }
    const py::gil_scoped_release release;
    held.reset();
  }
};

std::unique_ptr<Owner> MakeOwner(const std::vector<std::string>& addresses) {
  auto made = [&] {
    const py::gil_scoped_release release;
    return fabric::MemoryOwner::Create({.addresses = addresses});
  }();
  auto owner = std::make_unique<Owner>();
  owner->owner = ValueOrRaise(std::move(made));
  owner->port = owner->owner->port();
  return owner;
}

std::unique_ptr<Mapped> Map(const Owner& owner, const py::object& memory) {
  if (owner.owner == nullptr) Raise({Code::kUnavailable, "the owner of the memory is closed", ""});
  auto mapped = std::make_unique<Mapped>();
  mapped->buffer = std::make_unique<Buffer>(memory, "memory", false);
  auto done = [&, held = owner.owner] {
    const py::gil_scoped_release release;
    return held->Map(mapped->buffer->bytes(), static_cast<size_t>(mapped->buffer->num_bytes()));
  }();
  mapped->memory = ValueOrRaise(std::move(done));
  return mapped;
}

}  // namespace

void BindMemory(py::module_& m) {
  py::class_<Mapped>(m, "MappedMemory")
      .def_property_readonly("address", [](const Mapped& mapped) { return mapped.memory->region().address; })
      .def_property_readonly("num_bytes", [](const Mapped& mapped) { return mapped.memory->region().bytes; })
      .def_property_readonly("key",
                             [](const Mapped& mapped) { return py::bytes(mapped.memory->region().key); });
  py::class_<Owner>(m, "MemoryOwner")
      .def(py::init(&MakeOwner), py::arg("addresses") = std::vector<std::string>())
      .def_property_readonly("port", [](const Owner& o) { return o.port; })
      .def("map", &Map, py::arg("memory"))
      .def("close", &Owner::Close);
}

}  // namespace cadre::python
