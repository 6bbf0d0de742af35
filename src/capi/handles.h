// What the files of the C API share: its handles, and how calls end.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "base/macros.h"
#include "kvcast.h"
#include "kvcast/batch.h"
#include "kvcast/chat.h"
#include "kvcast/kvcast.h"

struct kvcast_model {
  std::shared_ptr<const kvcast::Model> model;
  std::string dtype, kv_dtype;
};

struct kvcast_chat {
  kvcast::ChatFormat format;
  std::vector<std::string> stop;
};

struct kvcast_session {
  kvcast::Session session;
};

struct kvcast_answer {
  std::optional<kvcast::AnswerStream> stream;  // none: of a batch, and over
  kvcast::Completion finished;
  std::stop_source cancel;
  std::string piece;

  [[nodiscard]] const kvcast::Completion& completion() const {
    return stream ? stream->completion() : finished;
  }
};

struct kvcast_batch {
  std::unique_ptr<kvcast::Batch> batch;
};

namespace kvcast::capi {

inline void set_error(char** error, const char* message) {
  if (error != nullptr) *error = ::strdup(message);
}

/// What `function` gives; `failed`, and the error's line, where it gives an error or memory runs
/// out.
template <typename T, typename Function>
T guarded(char** error, T failed, const Function& function) {
  try {
    Result<T> result = function();
    if (result) return *std::move(result);
    set_error(error, result.error().message.c_str());
  } catch (const std::bad_alloc&) {
    set_error(error, "not enough memory");
  }
  return failed;
}

/// The caller's struct, whichever release it was compiled against; what it does not have is zero.
/// No struct ends within a field: half of a pointer would be one to anywhere. A size of 0 is one
/// that was forgotten: what else the caller set would count for nothing.
template <typename T>
Result<T> known_fields(const T* given) {
  T options{};
  if (given == nullptr) return options;
  if (given->struct_size == 0 || given->struct_size % alignof(T) != 0) {
    return fail("struct_size " + std::to_string(given->struct_size) +
                ": expected sizeof the struct, in this release's kvcast.h or an earlier one's");
  }
  std::memcpy(&options, given, std::min(given->struct_size, sizeof(T)));
  return options;
}

/// What is not given is the library's default. An error is a `drafts` that cannot be read.
Result<GenerateOptions> options_of(const kvcast_generate_options* given);

}  // namespace kvcast::capi
