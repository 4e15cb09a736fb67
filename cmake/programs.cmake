# SPDX-License-Identifier: Apache-2.0
# How our own programs, libraries and benches are compiled and what they may link.
include(${CMAKE_CURRENT_LIST_DIR}/warnings.cmake)

# find_package that names the Debian package where it fails.
macro(kvast_find package debian_package)
  find_package(${package} ${ARGN} QUIET)
  if(NOT ${package}_FOUND)
    message(FATAL_ERROR
      "kvast: ${package} was not found; its Debian and Ubuntu package is ${debian_package}. "
      "./dev build installs it. The library itself does not need it: "
      "-DKVAST_BUILD_TESTS=OFF -DKVAST_BUILD_BENCH=OFF -DKVAST_BUILD_EXAMPLES=OFF.")
  endif()
endmacro()

kvast_find(OpenMP libgomp1 COMPONENTS CXX)
kvast_find(Eigen3 libeigen3-dev)

# What every program of ours gets. Includes are written from the repository's root ("tests/support/reference.h").
function(kvast_program target)
  kvast_warnings(${target})
  target_include_directories(${target} PUBLIC ${PROJECT_SOURCE_DIR})
  target_link_libraries(${target} PUBLIC kvast::kvast OpenMP::OpenMP_CXX Eigen3::Eigen)
  if(KVAST_NATIVE)
    target_compile_options(${target} PRIVATE -march=native)
  endif()
endfunction()
