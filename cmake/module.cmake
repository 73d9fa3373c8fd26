# lukskeep_module(NAME folder USES module... LIBS library...)
#
# One static library per folder of src/. A folder may include only what stands in USES (and what
# that uses in turn). Beside x.cpp stand x_test.cpp (all of a folder go into NAME_test), x_fuzz.cpp
# (one program each) and x_bench.cpp (all into NAME_bench).
function(lukskeep_module)
  cmake_parse_arguments(M "" "NAME" "USES;LIBS" ${ARGN})
  set(dir ${CMAKE_SOURCE_DIR}/src/${M_NAME})
  file(GLOB sources CONFIGURE_DEPENDS ${dir}/*.cpp)
  file(GLOB tests CONFIGURE_DEPENDS ${dir}/*_test.cpp)
  file(GLOB fuzzers CONFIGURE_DEPENDS ${dir}/*_fuzz.cpp)
  file(GLOB benches CONFIGURE_DEPENDS ${dir}/*_bench.cpp)
  list(REMOVE_ITEM sources ${dir}/main.cpp ${tests} ${fuzzers} ${benches} "")

  if(NOT sources)
    message(FATAL_ERROR "src/${M_NAME} has no sources")
  endif()
  add_library(lukskeep_${M_NAME} STATIC ${sources})
  target_include_directories(lukskeep_${M_NAME} PUBLIC
    ${CMAKE_SOURCE_DIR}/src ${CMAKE_SOURCE_DIR}/include)
  list(TRANSFORM M_USES PREPEND lukskeep_)
  target_link_libraries(lukskeep_${M_NAME} PUBLIC ${M_USES} ${M_LIBS} fmt::fmt
    PRIVATE lukskeep_options)

  if(LUKSKEEP_TESTS AND tests)
    add_executable(${M_NAME}_test ${tests})
    target_link_libraries(${M_NAME}_test PRIVATE lukskeep_${M_NAME} lukskeep_options
      GTest::gmock GTest::gtest GTest::gtest_main)
    target_compile_definitions(${M_NAME}_test PRIVATE
      LUKSKEEP_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
    set_property(GLOBAL APPEND PROPERTY LUKSKEEP_UNIT_TESTS ${M_NAME}_test)
  endif()
  if(LUKSKEEP_BENCH AND benches)
    add_executable(${M_NAME}_bench ${benches})
    target_link_libraries(${M_NAME}_bench PRIVATE lukskeep_${M_NAME} lukskeep_options
      benchmark::benchmark benchmark::benchmark_main)
  endif()
  if(LUKSKEEP_TESTS OR LUKSKEEP_FUZZ)
    foreach(fuzzer ${fuzzers})
      get_filename_component(target ${fuzzer} NAME_WE)
      add_executable(${target} ${fuzzer})
      target_link_libraries(${target} PRIVATE lukskeep_${M_NAME} lukskeep_options)
      if(LUKSKEEP_FUZZ)
        target_link_options(${target} PRIVATE -fsanitize=fuzzer)
      else()
        # Without libFuzzer the program replays the files and folders it is given.
        target_sources(${target} PRIVATE ${CMAKE_SOURCE_DIR}/tests/corpus/replay_main.cpp)
      endif()
    endforeach()
  endif()
endfunction()
