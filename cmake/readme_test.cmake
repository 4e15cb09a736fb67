# SPDX-License-Identifier: Apache-2.0
# The README holds these programs to the letter, which are compiled and run as tests.
file(READ ${ROOT}/README.md readme)
foreach(name minimal.cpp minimal_cuda.cu)
  file(READ ${ROOT}/examples/${name} source)
  string(STRIP "${source}" source)
  string(FIND "${readme}" "${source}" found)
  if(found EQUAL -1)
    message(FATAL_ERROR "README.md does not hold examples/${name} as it is")
  endif()
endforeach()
