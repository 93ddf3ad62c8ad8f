// Included before every file of mlx-c (see setup/mlxc.rs): what it takes for granted on a Mac.
#pragma once
#ifdef __cplusplus

#include <sstream>
#include <string>
#include <version>

// GCC has <format> from version 13 on. mlx-c uses nothing of it but plain `{}`.
#ifndef __cpp_lib_format
namespace std {
template <class... Arguments>
string format(const char* pattern, const Arguments&... arguments) {
  ostringstream out;
  auto put = [&](const auto& argument) {
    while (*pattern && !(pattern[0] == '{' && pattern[1] == '}')) out << *pattern++;
    if (*pattern) {
      out << argument;
      pattern += 2;
    }
  };
  (put(arguments), ...);
  out << pattern;
  return out.str();
}
} // namespace std
#else
#include <format>
#endif

// mlx-c has its half-precision functions only where the compiler has such types, that is, on Arm;
// mlx-rs calls them everywhere. MLX's own types have the same layout and exist on every processor,
// so these replace mlx-c's half.h.
#define MLX_HALF_H
#define HAS_FLOAT16
#define HAS_BFLOAT16
#include "mlx/types/half_types.h"
using float16_t = mlx::core::float16_t;
using bfloat16_t = mlx::core::bfloat16_t;

#endif
