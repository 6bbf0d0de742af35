// Inside src/train errors are exceptions, because libtorch's are; run_guarded (the edge) turns
// every one of them into a Result.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

#include "kvcast/result.h"

namespace kvcast::train {

/// A failed run: a file, a recipe or the data is not what was expected.
class TrainError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The value, or the Result's message as a TrainError.
template <typename T>
T unwrap(Result<T>&& result) {
  if (!result) throw TrainError(result.error().message);
  return std::move(*result);
}
inline void unwrap(Status&& status) {
  if (!status) throw TrainError(status.error().message);
}

}  // namespace kvcast::train
