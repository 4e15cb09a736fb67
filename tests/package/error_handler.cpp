// SPDX-License-Identifier: Apache-2.0
// Without exceptions misuse reaches the handler with its message, and does not go on.
#include <kvast/core/shape.h>

#include <cstdlib>
#include <cstring>

int main() {
  kvast::set_error_handler(
      [](const char* message) { std::_Exit(std::strstr(message, "head_dim is 7") ? 0 : 1); });
  [[maybe_unused]] const kvast::ShapeList shapes(kvast::Shape{.head_dim = 7});
  return 2;
}
