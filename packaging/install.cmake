# The shared library, what `make install` puts where, and the Debian package.

# liblukskeep holds the modules a program may use; it exports what LUKSKEEP_API marks, no more.
# The program links the modules themselves, and starts without it.
if(NOT LUKSKEEP_SANITIZE AND NOT LUKSKEEP_FUZZ)
  set(modules base crypto storage luks keys)
  list(TRANSFORM modules PREPEND lukskeep_)
  # All of their objects, used by another module or not; the archives bring what they link.
  list(TRANSFORM modules REPLACE "(.+)" "$<TARGET_OBJECTS:\\1>" OUTPUT_VARIABLE objects)
  add_library(liblukskeep SHARED ${CMAKE_CURRENT_LIST_DIR}/version.cpp ${objects})
  target_compile_definitions(liblukskeep PRIVATE LUKSKEEP_VERSION="${PROJECT_VERSION}")
  target_include_directories(liblukskeep PUBLIC
    $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  target_compile_features(liblukskeep PUBLIC cxx_std_20)
  target_link_libraries(liblukskeep PRIVATE ${modules} lukskeep_options)
  target_link_options(liblukskeep PRIVATE
    -Wl,--version-script=${CMAKE_CURRENT_LIST_DIR}/liblukskeep.map)
  set_target_properties(liblukskeep PROPERTIES
    OUTPUT_NAME lukskeep
    EXPORT_NAME lukskeep
    VERSION ${PROJECT_VERSION}
    SOVERSION ${PROJECT_VERSION_MAJOR}
    LINK_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/liblukskeep.map)

  install(TARGETS liblukskeep EXPORT lukskeep
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
  install(DIRECTORY ${CMAKE_SOURCE_DIR}/include/lukskeep
    DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")

  # Both kinds of package file find the rest relative to themselves: the tree may be moved.
  include(CMakePackageConfigHelpers)
  set(config_dir ${CMAKE_INSTALL_LIBDIR}/cmake/lukskeep)
  configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/cmake/lukskeep-config.cmake.in
    ${CMAKE_BINARY_DIR}/lukskeep-config.cmake INSTALL_DESTINATION ${config_dir})
  write_basic_package_version_file(${CMAKE_BINARY_DIR}/lukskeep-config-version.cmake
    COMPATIBILITY SameMinorVersion)
  install(FILES ${CMAKE_BINARY_DIR}/lukskeep-config.cmake
    ${CMAKE_BINARY_DIR}/lukskeep-config-version.cmake DESTINATION ${config_dir})
  install(EXPORT lukskeep NAMESPACE lukskeep:: FILE lukskeep-targets.cmake
    DESTINATION ${config_dir})

  file(RELATIVE_PATH pc_prefix /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
  string(REGEX REPLACE "/$" "" pc_prefix "${pc_prefix}")
  configure_file(${CMAKE_CURRENT_LIST_DIR}/lukskeep.pc.in ${CMAKE_BINARY_DIR}/lukskeep.pc @ONLY)
  install(FILES ${CMAKE_BINARY_DIR}/lukskeep.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endif()

install(TARGETS lukskeep RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
include(${CMAKE_CURRENT_LIST_DIR}/compat.cmake)
# With the prefix /usr this is where nbdkit looks; with another, give nbdkit the path.
install(TARGETS nbdkit-lukskeep-plugin LIBRARY
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/nbdkit/plugins)
install(FILES ${CMAKE_CURRENT_LIST_DIR}/completion/lukskeep.bash RENAME lukskeep
  DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
install(FILES ${CMAKE_CURRENT_LIST_DIR}/systemd/lukskeep-archive.service
  ${CMAKE_CURRENT_LIST_DIR}/systemd/lukskeep-archive.timer
  ${CMAKE_CURRENT_LIST_DIR}/systemd/lukskeep-archive-sync.service
  ${CMAKE_CURRENT_LIST_DIR}/systemd/lukskeep-archive-sync.timer
  ${CMAKE_CURRENT_LIST_DIR}/systemd/lukskeep-archive-watch.service
  ${CMAKE_CURRENT_LIST_DIR}/systemd/lukskeep-tang.service
  ${CMAKE_CURRENT_LIST_DIR}/systemd/lukskeep-tang.socket DESTINATION lib/systemd/system)
install(DIRECTORY ${CMAKE_CURRENT_LIST_DIR}/juju DESTINATION ${CMAKE_INSTALL_DATADIR}/lukskeep
  USE_SOURCE_PERMISSIONS PATTERN __pycache__ EXCLUDE)
install(DIRECTORY ${CMAKE_CURRENT_LIST_DIR}/kubernetes
  DESTINATION ${CMAKE_INSTALL_DATADIR}/lukskeep)
install(FILES ${CMAKE_SOURCE_DIR}/LICENSE ${CMAKE_SOURCE_DIR}/docs/juju.md
  DESTINATION ${CMAKE_INSTALL_DOCDIR})

set(CPACK_PACKAGE_NAME lukskeep)
set(CPACK_PACKAGE_VENDOR LuksKeep)
set(CPACK_PACKAGE_CONTACT "LuksKeep developers <lukskeep@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY ${PROJECT_DESCRIPTION})
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_GENERATOR DEB)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION admin)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
# Loaded at run time (src/net), which shlibdeps does not see; CURLOPT_PROTOCOLS_STR came with 7.85.
set(CPACK_DEBIAN_PACKAGE_DEPENDS "libcurl4 (>= 7.85)")
# What `lukskeep serve` becomes.
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS nbdkit)
# For the pin tpm2 only, likewise.
set(CPACK_DEBIAN_PACKAGE_SUGGESTS "libtss2-esys-3.0.2-0, libtss2-tctildr0, libtss2-mu0")
# Likewise (src/storage), and only for who names volumes elsewhere.
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS libnbd0)
set(CPACK_DEBIAN_PACKAGE_SUGGESTS librbd1)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
set(CPACK_DEBIAN_PACKAGE_DESCRIPTION
  "Creates, opens, reads, writes and re-keys LUKS1 and LUKS2 volumes in files and on block\n\
 devices without root, without device-mapper and without another LUKS implementation.")
include(CPack)
