# cadre_python_module(name DEPS rooms...): the extension cadre._engine from engine/*.cc of the calling folder, in
# build/<preset>/python/cadre beside links to the package's Python files, so that PYTHONPATH=build/<preset>/python is
# all that a user needs. tools/check_layers.py compares DEPS as it does for cadre_room.

# Every room that `target` is made of goes into a shared object: compiled position independent, and as quick as
# before, since nobody may put other functions in place of ours.
function(cadre_for_shared_object target)
  get_target_property(done ${target} POSITION_INDEPENDENT_CODE)
  if(done)
    return()
  endif()
  set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  get_target_property(type ${target} TYPE)
  if(NOT type STREQUAL INTERFACE_LIBRARY)
    target_compile_options(${target} PRIVATE -fno-semantic-interposition)
  endif()
  get_target_property(libraries ${target} INTERFACE_LINK_LIBRARIES)
  foreach(library IN LISTS libraries)
    if(library MATCHES "^cadre_")
      cadre_for_shared_object(${library})
    endif()
  endforeach()
endfunction()

function(cadre_python_module name)
  cmake_parse_arguments(ARG "" "" "DEPS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/engine/*.cc)
  set(package ${CMAKE_BINARY_DIR}/python/cadre)
  pybind11_add_module(cadre_${name} MODULE NO_EXTRAS ${sources})
  target_include_directories(cadre_${name} PRIVATE ${CMAKE_SOURCE_DIR}/src ${CMAKE_SOURCE_DIR})
  target_compile_definitions(cadre_${name} PRIVATE CADRE_VERSION="${PROJECT_VERSION}")
  foreach(dep IN LISTS ARG_DEPS)
    cadre_for_shared_object(cadre_${dep})
    target_link_libraries(cadre_${name} PRIVATE cadre_${dep})
  endforeach()
  set_target_properties(cadre_${name} PROPERTIES OUTPUT_NAME _engine LIBRARY_OUTPUT_DIRECTORY ${package}
                        CXX_VISIBILITY_PRESET hidden)
  file(GLOB_RECURSE files CONFIGURE_DEPENDS RELATIVE ${CMAKE_CURRENT_SOURCE_DIR}/cadre
       ${CMAKE_CURRENT_SOURCE_DIR}/cadre/*.py ${CMAKE_CURRENT_SOURCE_DIR}/cadre/*.pyi ${CMAKE_CURRENT_SOURCE_DIR}/cadre/py.typed)
  foreach(file IN LISTS files)
    get_filename_component(folder ${package}/${file} DIRECTORY)
    file(MAKE_DIRECTORY ${folder})
    file(CREATE_LINK ${CMAKE_CURRENT_SOURCE_DIR}/cadre/${file} ${package}/${file} SYMBOLIC)
  endforeach()
endfunction()
