# Compiler warnings, hardening and sanitizers: one target that every target of ours links.
add_library(lukskeep_options INTERFACE)

target_compile_options(lukskeep_options INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wnon-virtual-dtor
  -Woverloaded-virtual -Wcast-align -Wformat=2 -Wimplicit-fallthrough
  # Members that a designated initialiser leaves out have their defaults: that is meant.
  -Wno-missing-field-initializers)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # "text" + std::string warns of an overlap that cannot be (GCC bug 105651).
  target_compile_options(lukskeep_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict>)
endif()
if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  # std::stable_sort of libstdc++ 12 calls what the same library deprecates.
  target_compile_options(lukskeep_options INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-Wno-deprecated-declarations>)
endif()
if(LUKSKEEP_WERROR)
  target_compile_options(lukskeep_options INTERFACE -Werror)
endif()

if(LUKSKEEP_SANITIZE)
  target_compile_options(lukskeep_options INTERFACE
    -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(lukskeep_options INTERFACE -fsanitize=address,undefined)
elseif(CMAKE_BUILD_TYPE STREQUAL "Release" OR CMAKE_BUILD_TYPE STREQUAL "RelWithDebInfo")
  target_compile_options(lukskeep_options INTERFACE -fstack-protector-strong)
  target_compile_definitions(lukskeep_options INTERFACE _FORTIFY_SOURCE=2)
  target_link_options(lukskeep_options INTERFACE -Wl,-z,relro,-z,now -Wl,--as-needed)
endif()

if(LUKSKEEP_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "LUKSKEEP_FUZZ needs clang: use the preset 'fuzz'")
  endif()
  target_compile_options(lukskeep_options INTERFACE -fsanitize=fuzzer-no-link)
endif()

find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
  set(CMAKE_C_COMPILER_LAUNCHER ${CCACHE})
endif()
