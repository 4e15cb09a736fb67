// SPDX-License-Identifier: Apache-2.0
// What messages call a type: its name as it is written in source, without our namespace.
#pragma once

#include <string>
#include <string_view>

namespace kvast::detail {

template <class Type>
constexpr std::string_view decorated_name() {
  return __PRETTY_FUNCTION__;
}

/// Stands for `Pyramid<AdaHeads<SnapKV>>` of kvast::Pyramid<kvast::AdaHeads<kvast::SnapKV> >; the
/// text is only made when a message is.
template <class Type>
struct TypeName {
  friend void append_text(std::string& text, TypeName) {
    // what the compiler writes before and after any type, known from one
    constexpr std::size_t before = decorated_name<int>().find("int");
    constexpr std::size_t after = decorated_name<int>().size() - before - 3;
    constexpr std::string_view decorated = decorated_name<Type>();
    std::string name(decorated.substr(before, decorated.size() - before - after));
    for (const std::string_view noise : {"kvast::", "{anonymous}::", "(anonymous namespace)::"}) {
      for (std::size_t at = name.find(noise); at != std::string::npos; at = name.find(noise))
        name.erase(at, noise.size());
    }
    for (std::size_t at = name.find("> >"); at != std::string::npos; at = name.find("> >"))
      name.erase(at + 1, 1);
    text += name;
  }
};
template <class Type>
inline constexpr TypeName<Type> type_name{};

}  // namespace kvast::detail
