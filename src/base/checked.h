// Arithmetic on sizes that come from files: overflow is an answer, not undefined behaviour.
#pragma once

#include <concepts>
#include <optional>
#include <span>

namespace kvcast {

template <std::integral T>
[[nodiscard]] std::optional<T> checked_multiply(T a, T b) {
  T product;
  if (__builtin_mul_overflow(a, b, &product)) return std::nullopt;
  return product;
}

template <std::integral T>
[[nodiscard]] std::optional<T> checked_add(T a, T b) {
  T sum;
  if (__builtin_add_overflow(a, b, &sum)) return std::nullopt;
  return sum;
}

/// Product of all dimensions; nullopt on overflow or a negative dimension.
template <std::integral T>
[[nodiscard]] std::optional<T> checked_product(std::span<const T> dimensions) {
  T product = 1;
  for (T dimension : dimensions) {
    if (dimension < 0) return std::nullopt;
    auto next = checked_multiply(product, dimension);
    if (!next) return std::nullopt;
    product = *next;
  }
  return product;
}

}  // namespace kvcast
