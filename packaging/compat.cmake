# The programs of Clevis and Tang under their own names: links to lukskeep in a folder of their own,
# which nobody has in PATH who does not put it there (lukskeep-compat(7)). src/cli/compat.cpp is
# what they are.
set(compat_names clevis clevis-decrypt clevis-luks-bind clevis-luks-edit clevis-luks-list
  clevis-luks-pass clevis-luks-regen clevis-luks-report clevis-luks-unbind clevis-luks-unlock
  tang-show-keys tangd tangd-keygen tangd-rotate-keys)
foreach(pin null sss tang tpm2)
  list(APPEND compat_names clevis-decrypt-${pin} clevis-encrypt-${pin})
endforeach()

# In the build folder, whichever of them are there already are made anew: it takes no time.
set(links COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/compat)
foreach(name ${compat_names})
  list(APPEND links COMMAND ${CMAKE_COMMAND} -E create_symlink ../lukskeep
    ${CMAKE_BINARY_DIR}/compat/${name})
endforeach()
add_custom_target(compat ALL ${links} VERBATIM)
add_dependencies(lukskeep compat)

set(compat_folder ${CMAKE_INSTALL_LIBEXECDIR}/lukskeep/compat)
file(RELATIVE_PATH compat_program /${compat_folder} /${CMAKE_INSTALL_BINDIR}/lukskeep)
file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/compat-install)
foreach(name ${compat_names})
  # Made here and not by a script: DESTDIR and CPack see it.
  file(CREATE_LINK ${compat_program} ${CMAKE_BINARY_DIR}/compat-install/${name} SYMBOLIC)
  install(FILES ${CMAKE_BINARY_DIR}/compat-install/${name} DESTINATION ${compat_folder})
endforeach()
