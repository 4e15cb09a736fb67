# SPDX-License-Identifier: Apache-2.0
# cmake -D COMPILER=... -D SOURCE=... -D INCLUDE=... -P: passes when SOURCE is refused with the sentence it expects.
cmake_minimum_required(VERSION 3.24)

file(STRINGS ${SOURCE} first_line LIMIT_COUNT 1)
if(NOT first_line MATCHES "^// expect: (.+)$")
  message(FATAL_ERROR "${SOURCE}: the first line must be '// expect: <sentence>'")
endif()
set(sentence "${CMAKE_MATCH_1}")

# LC_ALL=C: elsewhere compilers quote names with typographic marks.
execute_process(
  COMMAND ${CMAKE_COMMAND} -E env LC_ALL=C ${COMPILER} -std=c++20 -fsyntax-only -I${INCLUDE} -I${INCLUDE}/../cuda
          ${SOURCE}
  RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
if(result EQUAL 0)
  message(FATAL_ERROR "${SOURCE} compiles, but must be refused with: ${sentence}")
endif()
string(FIND "${output}" "${sentence}" position)
if(position EQUAL -1)
  message(FATAL_ERROR "${SOURCE} is refused, but not with: ${sentence}\n${output}")
endif()
