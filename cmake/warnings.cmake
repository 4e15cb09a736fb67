# SPDX-License-Identifier: Apache-2.0
# The warnings that our own programs are held to; a user's targets never see them.

function(kvast_warnings target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror)
  if(CMAKE_CXX_FLAGS MATCHES "-fsanitize")  # what they insert makes g++ warn of paths that do not exist
    target_compile_options(${target} PRIVATE -Wno-error)
  endif()
endfunction()
