// Early return on error, so that the success path of a function reads straight down.
#pragma once

#include "kvcast/result.h"

#define KVCAST_CONCAT_(a, b) a##b
#define KVCAST_CONCAT(a, b) KVCAST_CONCAT_(a, b)

/// KVCAST_TRY(auto file, open(path)): evaluates to the value, or returns the error to the caller.
#define KVCAST_TRY(declaration, expression) \
  KVCAST_TRY_IMPL(KVCAST_CONCAT(result_, __COUNTER__), declaration, expression)
// NOLINTBEGIN(bugprone-macro-parentheses): a name and a declaration take none
#define KVCAST_TRY_IMPL(result, declaration, expression)         \
  auto result = (expression);                                    \
  if (!result) return tl::unexpected(std::move(result.error())); \
  declaration = std::move(*result)
// NOLINTEND(bugprone-macro-parentheses)

/// The same for functions that return Status.
#define KVCAST_CHECK(expression)                        \
  do {                                                  \
    if (auto status = (expression); !status) {          \
      return tl::unexpected(std::move(status.error())); \
    }                                                   \
  } while (false)
