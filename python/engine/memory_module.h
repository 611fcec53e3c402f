#pragma once
// Memory that ranks of servers read over UCX, for cadre.rl.
#include <pybind11/pybind11.h>

namespace cadre::python {

void BindMemory(pybind11::module_& m);

}  // namespace cadre::python
