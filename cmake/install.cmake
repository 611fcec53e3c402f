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
file(GLOB pages ${CMAKE_SOURCE_DIR}/docs/*.md ${CMAKE_SOURCE_DIR}/docs/*.svg)
install(FILES ${pages} ${CMAKE_SOURCE_DIR}/README.md ${CMAKE_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY ${CMAKE_SOURCE_DIR}/docs/guides/ DESTINATION ${CMAKE_INSTALL_DOCDIR}/guides)
install(DIRECTORY ${CMAKE_SOURCE_DIR}/examples/ DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples
        PATTERN "__pycache__" EXCLUDE)
