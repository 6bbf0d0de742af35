// The typed key-value pairs at the head of a GGUF file, as views of the mapped bytes.
// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kvcast/result.h"

namespace kvcast {

/// As the format numbers them.
enum class GgufType : uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64
};

/// Reads a GGUF file front to back; nothing is read, or skipped, beyond its end.
class GgufCursor {
 public:
  /// `file` is what errors begin with.
  GgufCursor(std::string file, std::span<const std::byte> bytes)
      : file_(std::move(file)), bytes_(bytes) {}

  [[nodiscard]] const std::string& file() const { return file_; }
  [[nodiscard]] size_t position() const { return position_; }
  [[nodiscard]] size_t left() const { return bytes_.size() - position_; }

  /// `what` is named where the file ends too early.
  template <typename T>
  Result<T> read(std::string_view what) {
    if (left() < sizeof(T)) return ends_in(what);
    T value;
    std::memcpy(&value, bytes_.data() + position_, sizeof value);  // little-endian hosts only
    position_ += sizeof value;
    return value;
  }
  /// A length of 8 bytes, then as many bytes.
  Result<std::string_view> read_string(std::string_view what);
  Result<std::span<const std::byte>> take(uint64_t bytes, std::string_view what);

 private:
  tl::unexpected<Error> ends_in(std::string_view what) const;

  std::string file_;
  std::span<const std::byte> bytes_;
  size_t position_ = 0;
};

/// The pairs of one file, checked when they were parsed. Strings are views of the file. Errors name
/// file, key and what was expected. Immutable; safe to share between threads.
class GgufMetadata {
 public:
  /// Reads `count` pairs. Keys that appear twice, unknown types, arrays of arrays, truth values
  /// other than 0 and 1, and anything that does not fit the file are errors.
  static Result<GgufMetadata> parse(GgufCursor& cursor, uint64_t count);

  /// A GGUF file of these pairs, but for those about splitting, and of no tensors.
  [[nodiscard]] std::string without_tensors() const;

  [[nodiscard]] bool contains(std::string_view key) const { return values_.contains(key); }

  Result<std::string_view> text(std::string_view key) const;
  /// Of any integer type; one beyond int64 is an error.
  Result<int64_t> integer(std::string_view key) const;
  /// Of any integer or floating type.
  Result<double> number(std::string_view key) const;
  Result<bool> boolean(std::string_view key) const;

  /// Arrays; a single integer or number counts as an array of one.
  Result<std::vector<std::string_view>> texts(std::string_view key) const;
  Result<std::vector<int64_t>> integers(std::string_view key) const;
  Result<std::vector<double>> numbers(std::string_view key) const;

 private:
  /// Elements one after another as in the file; a string's length precedes it.
  struct Value {
    GgufType type = GgufType::kU8;  ///< of the elements, if it is an array
    bool is_array = false;
    uint64_t count = 1;
    std::span<const std::byte> bytes;
  };
  static Result<Value> parse_value(GgufCursor& cursor, const std::string& what);

  Result<Value> find(std::string_view key) const;
  Result<Value> find_single(std::string_view key, std::string_view expected) const;
  tl::unexpected<Error> wrong(std::string_view key, std::string_view expected) const;
  template <typename T>
  Result<std::vector<T>> elements(std::string_view key, const Value& value,
                                  std::string_view expected) const;

  std::string file_;
  std::map<std::string, Value, std::less<>> values_;
};

}  // namespace kvcast
