#pragma once
#include <algorithm>
#include <span>

#include "text/jinja_runtime.h"

namespace cadre::jinja {

/// The methods of str; jinja_methods_str.cc.
std::span<const Method> StrMethods();

}  // namespace cadre::jinja
