# SPDX-License-Identifier: Apache-2.0
# The README's first snippet is examples/minimal.cpp to the letter, which is compiled and run as a test.
file(READ ${ROOT}/examples/minimal.cpp source)
file(READ ${ROOT}/README.md readme)
string(STRIP "${source}" source)
string(FIND "${readme}" "${source}" found)
if(found EQUAL -1)
  message(FATAL_ERROR "README.md does not hold examples/minimal.cpp as it is")
endif()
