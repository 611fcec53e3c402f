#pragma once
// The Python side of Llm and of the table of flags.
#include <pybind11/pybind11.h>

namespace cadre::python {

void BindLlm(pybind11::module_& m);
void BindFlags(pybind11::module_& m);

}  // namespace cadre::python
