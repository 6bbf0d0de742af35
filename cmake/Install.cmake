# cmake --install, find_package(kvcast) and pkg-config for programs that use the library, and the
# Debian package. Everything goes below the prefix.
include(CMakePackageConfigHelpers)
set(KVCAST_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/kvcast)

install(TARGETS kvcast EXPORT kvcast-targets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS kvcast_program RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(FILES include/kvcast.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY include/kvcast DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY models/ DESTINATION ${CMAKE_INSTALL_DATADIR}/kvcast/models PATTERN hub EXCLUDE)
install(FILES packaging/kvcast.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions
        RENAME kvcast)
install(FILES packaging/_kvcast DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
install(FILES packaging/kvcast.service DESTINATION lib/systemd/system)

# What the README links to stays in the source tree: here the links are plain text.
file(READ README.md readme)
string(REGEX REPLACE "\\[([^]]*)\\]\\([^:)]*\\)" "\\1" readme "${readme}")
file(WRITE ${PROJECT_BINARY_DIR}/README.md "${readme}")
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS README.md)
install(FILES LICENSE ${PROJECT_BINARY_DIR}/README.md DESTINATION ${CMAKE_INSTALL_DOCDIR})

# The man page of a program, made from NAME.1.in and what the program's --help lists.
function(kvcast_man_page program name)
  set(page ${PROJECT_BINARY_DIR}/${name}.1)
  add_custom_command(OUTPUT ${page}
    COMMAND ${PROJECT_SOURCE_DIR}/packaging/man_page.sh $<TARGET_FILE:${program}>
            ${PROJECT_SOURCE_DIR}/packaging/${name}.1.in ${PROJECT_VERSION} > ${page}
    DEPENDS ${program} packaging/man_page.sh packaging/${name}.1.in)
  add_custom_target(${name}_man_page ALL DEPENDS ${page})
  install(FILES ${page} DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
endfunction()
kvcast_man_page(kvcast_program kvcast)
if(TARGET kvcast-train)
  install(TARGETS kvcast-train kvcast-train-text RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  kvcast_man_page(kvcast-train kvcast-train)
endif()

install(EXPORT kvcast-targets NAMESPACE kvcast:: DESTINATION ${KVCAST_CMAKE_DIR})
configure_package_config_file(cmake/kvcast-config.cmake.in ${PROJECT_BINARY_DIR}/kvcast-config.cmake
                              INSTALL_DESTINATION ${KVCAST_CMAKE_DIR})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/kvcast-config-version.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/kvcast-config.cmake ${PROJECT_BINARY_DIR}/kvcast-config-version.cmake
        DESTINATION ${KVCAST_CMAKE_DIR})
configure_file(cmake/kvcast.pc.in ${PROJECT_BINARY_DIR}/kvcast.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/kvcast.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

# cpack (make deb).
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "${PROJECT_DESCRIPTION}")
set(CPACK_PACKAGE_CONTACT "the kvcast developers")
set(CPACK_PACKAGE_DIRECTORY ${PROJECT_BINARY_DIR})
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)  # and ldconfig on installing
set(CPACK_DEBIAN_PACKAGE_SUGGESTS "libexpected-dev, bubblewrap")
include(CPack)
