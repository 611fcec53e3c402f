# What `cmake --install` and the wheel take.
#
# In the wheel (scikit-build-core sets SKBUILD) the package's Python files come from pyproject.toml; here the extension
# and the program join them. Otherwise: the program, pages that it writes itself (shell completions, the manual page),
# systemd units with its path, and the documents.

if(CADRE_FUZZ OR CADRE_SANITIZE)
  return()
endif()

if(SKBUILD)
  install(TARGETS cadre RUNTIME DESTINATION bin COMPONENT wheel)
  install(TARGETS cadre_python LIBRARY DESTINATION . COMPONENT wheel)
  return()
endif()

include(GNUInstallDirs)
install(TARGETS cadre RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(CODE "
  set(program \"$<TARGET_FILE:cadre>\")
  set(source \"${CMAKE_SOURCE_DIR}\")
  set(work \"${CMAKE_BINARY_DIR}/install\")
  set(bin \"${CMAKE_INSTALL_BINDIR}\")
  set(data \"${CMAKE_INSTALL_DATADIR}\")
  set(man \"${CMAKE_INSTALL_MANDIR}\")
  include(\"${CMAKE_SOURCE_DIR}/cmake/install_pages.cmake\")
")
# As in the source tree, so that pages find each other, the examples and the files that their commands name.
foreach(file README.md CONTRIBUTING.md LICENSE)
  install(FILES ${CMAKE_SOURCE_DIR}/${file} DESTINATION ${CMAKE_INSTALL_DOCDIR})
endforeach()
foreach(folder docs examples configs scripts)
  install(DIRECTORY ${CMAKE_SOURCE_DIR}/${folder} DESTINATION ${CMAKE_INSTALL_DOCDIR} USE_SOURCE_PERMISSIONS
          PATTERN "__pycache__" EXCLUDE PATTERN "setup.sh" EXCLUDE)
endforeach()
