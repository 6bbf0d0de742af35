// Errors as values. Everything a user, a file or a peer can get wrong comes back as a Result;
// the library never prints, exits or throws across its public functions.
#pragma once

#include <string>
#include <tl/expected.hpp>

namespace kvcast {

/// One line that says what is wrong, where (file, tensor, option) and what was expected.
struct [[nodiscard]] Error {
  std::string message;
};

template <typename T>
using Result = tl::expected<T, Error>;

/// A Result of a function that returns nothing on success.
using Status = Result<void>;

/// `return fail("...")` from any function returning Result<T>. Messages quote names and values from
/// files and command lines, so whatever is in them is made to fit one_line().
tl::unexpected<Error> fail(std::string message);

/// Control characters become spaces; of a text of more than 1000 bytes the beginning and the end
/// are kept.
std::string one_line(std::string text);

}  // namespace kvcast
