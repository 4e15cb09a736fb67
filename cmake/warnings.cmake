# SPDX-License-Identifier: Apache-2.0
# The warnings that our own programs are held to; a user's targets never see them.

function(kvast_warnings target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror)
endfunction()
