# Language level, warnings, sanitizers and the compiler cache: what every room is built with.

set(CMAKE_CXX_STANDARD 23)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

# A typo in the build type would otherwise build without optimisation and say nothing.
set(known_build_types Debug Release RelWithDebInfo)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
elseif(NOT CMAKE_BUILD_TYPE IN_LIST known_build_types)
  message(FATAL_ERROR "CMAKE_BUILD_TYPE=${CMAKE_BUILD_TYPE} is unknown; use one of: ${known_build_types}")
endif()

set(CADRE_SANITIZE "" CACHE STRING "Sanitizers for -fsanitize=: address, undefined, thread, or a comma list")
option(CADRE_FUZZ "Build only the libFuzzer targets (needs clang)" OFF)

# Argument structs are filled by designated initializers; what is left out has its default.
add_compile_options(-Wall -Wextra -Wshadow -Werror -Wno-missing-field-initializers -fno-math-errno -fno-trapping-math -ffp-contract=off)
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  # libstdc++ 12's own std::stable_sort calls a function that it marks as deprecated.
  add_compile_options(-Wno-deprecated-declarations)
endif()
if(CADRE_SANITIZE)
  add_compile_options(-fsanitize=${CADRE_SANITIZE} -fno-omit-frame-pointer -g1)
  add_link_options(-fsanitize=${CADRE_SANITIZE})
  if(CADRE_SANITIZE MATCHES "undefined")
    add_compile_options(-fno-sanitize-recover=all)
  endif()
  if(CADRE_SANITIZE MATCHES "address.*undefined")
    # These two checks cost a quarter of the compile time; ASan stops at null anyway, and the preset `ubsan` has both.
    add_compile_options(-fno-sanitize=null,alignment)
  endif()
endif()
if(CADRE_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()

find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_C_COMPILER_LAUNCHER ${CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()
