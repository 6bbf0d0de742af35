# cmake --install, and find_package(kvcast) for programs that use the library.
include(CMakePackageConfigHelpers)
set(KVCAST_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/kvcast)

install(TARGETS kvcast EXPORT kvcast-targets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS kvcast_program RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
set_target_properties(kvcast_program PROPERTIES INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR}")
if(TARGET kvcast-train)
  install(TARGETS kvcast-train kvcast-train-text RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  set_target_properties(kvcast-train kvcast-train-text PROPERTIES
                        INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR}")
endif()
install(DIRECTORY include/kvcast DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY models/ DESTINATION ${CMAKE_INSTALL_DATADIR}/kvcast/models PATTERN hub EXCLUDE)
install(FILES LICENSE README.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
add_custom_command(OUTPUT ${PROJECT_BINARY_DIR}/kvcast.1
  COMMAND ${PROJECT_SOURCE_DIR}/packaging/man_page.sh $<TARGET_FILE:kvcast_program>
          ${PROJECT_SOURCE_DIR}/packaging/kvcast.1.in > ${PROJECT_BINARY_DIR}/kvcast.1
  DEPENDS kvcast_program packaging/man_page.sh packaging/kvcast.1.in)
add_custom_target(kvcast_man_page ALL DEPENDS ${PROJECT_BINARY_DIR}/kvcast.1)
install(FILES ${PROJECT_BINARY_DIR}/kvcast.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES packaging/kvcast.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions
        RENAME kvcast)
install(FILES packaging/_kvcast DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
install(FILES packaging/kvcast.service DESTINATION ${CMAKE_INSTALL_PREFIX}/lib/systemd/system)

install(EXPORT kvcast-targets NAMESPACE kvcast:: DESTINATION ${KVCAST_CMAKE_DIR})
configure_package_config_file(cmake/kvcast-config.cmake.in ${PROJECT_BINARY_DIR}/kvcast-config.cmake
                              INSTALL_DESTINATION ${KVCAST_CMAKE_DIR})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/kvcast-config-version.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/kvcast-config.cmake ${PROJECT_BINARY_DIR}/kvcast-config-version.cmake
        DESTINATION ${KVCAST_CMAKE_DIR})
