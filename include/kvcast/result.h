// Errors as values. Everything a user, a file or a peer can get wrong comes back as a Result;
// the library never prints, exits or throws across its public functions.
#pragma once

#include <string>
#include <tl/expected.hpp>
#include <utility>

namespace kvcast {

/// One line that says what is wrong, where (file, tensor, option) and what was expected.
struct [[nodiscard]] Error {
  std::string message;
};

template <typename T>
using Result = tl::expected<T, Error>;

/// A Result of a function that returns nothing on success.
using Status = Result<void>;

/// `return fail("...")` from any function returning Result<T>.
inline tl::unexpected<Error> fail(std::string message) {
  return tl::unexpected<Error>(Error{std::move(message)});
}

}  // namespace kvcast
