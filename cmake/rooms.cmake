# A room is a folder of src/. Its CMakeLists.txt is one call:
#
#   cadre_room(name [TSAN] [HEAVY] DEPS other rooms... LIBS foreign libraries...)
#
# TSAN: its unit tests use threads and also run under ThreadSanitizer (ctest label "tsan").
# HEAVY: its tests are too slow for the sanitizers (ctest label "heavy").
# which makes, from the files found in the folder (subfolders included):
#   cadre_<room>               every *.cc but main.cc and the four kinds below
#   <room>_test                *_test.cc, each TEST registered with ctest
#   <room>_golden_test         *_golden_test.cc, ctest label "golden"
#   <room>_long_test           *_long_test.cc, ctest label "long"
#   <room>_bench               *_bench.cc (Google Benchmark)
#   <file>                     *_fuzz.cc, one libFuzzer program each, only with CADRE_FUZZ
# tools/check_layers.py compares DEPS with docs/architecture.md and with the #include lines.

find_package(fmt REQUIRED)
if(NOT CADRE_FUZZ)
  find_package(GTest REQUIRED)
  find_package(rapidcheck REQUIRED)
  find_package(benchmark REQUIRED)
  include(GoogleTest)
endif()

# What each sanitizer runs and what fuzzing needs, so that ./test builds no more than that.
add_custom_target(asan_tests)
add_custom_target(tsan_tests)
add_custom_target(fuzz_programs)

# cadre_label(target labels...): puts a test program into those two targets by its ctest labels.
function(cadre_label target)
  if(NOT "${ARGN}" MATCHES "heavy|long|python|multihost")
    add_dependencies(asan_tests ${target})
  endif()
  if("tsan" IN_LIST ARGN)
    add_dependencies(tsan_tests ${target})
  endif()
endfunction()

# cadre_test_program(target "label;label" sources...): GoogleTest program; links ${room_lib} of its caller.
function(cadre_test_program target labels_of_target)
  add_executable(${target} ${ARGN})
  cadre_label(${target} ${labels_of_target})
  target_link_libraries(${target} PRIVATE ${room_lib} GTest::gtest GTest::gmock GTest::gtest_main rapidcheck)
  target_compile_definitions(${target} PRIVATE CADRE_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  set(labels "")
  if(labels_of_target)
    # gtest_discover_tests loses lists within a list; ctest -L takes a regular expression, so one label can hold both.
    string(REPLACE ";" "+" joined "${labels_of_target}")
    set(labels PROPERTIES LABELS ${joined})
  endif()
  gtest_discover_tests(${target} DISCOVERY_MODE PRE_TEST TEST_PREFIX "${target}:" ${labels}
                       WORKING_DIRECTORY ${CMAKE_SOURCE_DIR} DISCOVERY_TIMEOUT 60)
endfunction()

function(cadre_room name)
  cmake_parse_arguments(ARG "TSAN;HEAVY" "" "DEPS;LIBS" ${ARGN})
  set(room_labels "")
  if(ARG_TSAN)
    list(APPEND room_labels tsan)
  endif()
  if(ARG_HEAVY)
    list(APPEND room_labels heavy)
  endif()
  file(GLOB_RECURSE files CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  set(tests ${files})
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")
  set(golden ${tests})
  list(FILTER golden INCLUDE REGEX "_golden_test\\.cc$")
  set(long ${tests})
  list(FILTER long INCLUDE REGEX "_long_test\\.cc$")
  list(FILTER tests EXCLUDE REGEX "_(golden|long)_test\\.cc$")
  set(benches ${files})
  list(FILTER benches INCLUDE REGEX "_bench\\.cc$")
  set(fuzzers ${files})
  list(FILTER fuzzers INCLUDE REGEX "_fuzz\\.cc$")
  list(FILTER files EXCLUDE REGEX "(_test|_bench|_fuzz|/main)\\.cc$")

  set(room_lib cadre_${name})
  if(files)
    add_library(${room_lib} STATIC ${files})
    set(scope PUBLIC)
  else()
    add_library(${room_lib} INTERFACE)
    set(scope INTERFACE)
  endif()
  target_include_directories(${room_lib} ${scope} ${CMAKE_SOURCE_DIR}/src)
  foreach(dep IN LISTS ARG_DEPS)
    target_link_libraries(${room_lib} ${scope} cadre_${dep})
  endforeach()
  target_link_libraries(${room_lib} ${scope} ${ARG_LIBS})

  if(CADRE_FUZZ)
    foreach(fuzzer IN LISTS fuzzers)
      get_filename_component(program ${fuzzer} NAME_WE)
      add_executable(${program} ${fuzzer})
      target_link_libraries(${program} PRIVATE ${room_lib})
      target_link_options(${program} PRIVATE -fsanitize=fuzzer)
      add_dependencies(fuzz_programs ${program})
      target_compile_definitions(${program} PRIVATE CADRE_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
    endforeach()
    return()
  endif()
  if(tests)
    cadre_test_program(${name}_test "${room_labels}" ${tests})
  endif()
  if(golden)
    set(golden_labels golden)
    if(ARG_HEAVY)
      list(APPEND golden_labels heavy)
    endif()
    cadre_test_program(${name}_golden_test "${golden_labels}" ${golden})
  endif()
  if(long)
    cadre_test_program(${name}_long_test "long" ${long})
  endif()
  if(benches)
    add_executable(${name}_bench ${benches})
    target_link_libraries(${name}_bench PRIVATE ${room_lib} benchmark::benchmark benchmark::benchmark_main)
    target_compile_definitions(${name}_bench PRIVATE CADRE_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  endif()
endfunction()
