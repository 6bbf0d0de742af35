#include "io/gguf_metadata.h"

#include <fmt/format.h>

#include <limits>
#include <optional>
#include <type_traits>

#include "base/checked.h"
#include "base/macros.h"

namespace kvcast {
namespace {

/// Real files have some dozens of keys. A bound keeps what parsing allocates in proportion.
constexpr uint64_t kMaxKeys = 65'536;

/// Bytes of an element; 0 for a string, whose length is its own; nullopt for what cannot be one.
std::optional<uint64_t> element_bytes(GgufType type) {
  switch (type) {
    case GgufType::kU8:
    case GgufType::kI8:
    case GgufType::kBool:
      return 1;
    case GgufType::kU16:
    case GgufType::kI16:
      return 2;
    case GgufType::kU32:
    case GgufType::kI32:
    case GgufType::kF32:
      return 4;
    case GgufType::kU64:
    case GgufType::kI64:
    case GgufType::kF64:
      return 8;
    case GgufType::kString:
      return 0;
    case GgufType::kArray:
      break;
  }
  return std::nullopt;
}

/// Calls `visit` with a value of the type that elements of `type` have in C++; false for strings.
template <typename Visitor>
bool with_type(GgufType type, Visitor visit) {
  switch (type) {
    case GgufType::kU8:
    case GgufType::kBool:
      visit(uint8_t{});
      return true;
    case GgufType::kI8:
      visit(int8_t{});
      return true;
    case GgufType::kU16:
      visit(uint16_t{});
      return true;
    case GgufType::kI16:
      visit(int16_t{});
      return true;
    case GgufType::kU32:
      visit(uint32_t{});
      return true;
    case GgufType::kI32:
      visit(int32_t{});
      return true;
    case GgufType::kU64:
      visit(uint64_t{});
      return true;
    case GgufType::kI64:
      visit(int64_t{});
      return true;
    case GgufType::kF32:
      visit(float{});
      return true;
    case GgufType::kF64:
      visit(double{});
      return true;
    default:
      return false;
  }
}

}  // namespace

tl::unexpected<Error> GgufCursor::ends_in(std::string_view what) const {
  return fail(
      fmt::format("{}: {}: the file ends at byte {}, inside it", file_, what, bytes_.size()));
}

Result<std::span<const std::byte>> GgufCursor::take(uint64_t bytes, std::string_view what) {
  if (bytes > left()) return ends_in(what);
  const auto taken = bytes_.subspan(position_, bytes);
  position_ += bytes;
  return taken;
}

Result<std::string_view> GgufCursor::read_string(std::string_view what) {
  KVCAST_TRY(const auto length, read<uint64_t>(what));
  KVCAST_TRY(const auto bytes, take(length, what));
  return std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

Result<GgufMetadata> GgufMetadata::parse(GgufCursor& cursor, uint64_t count) {
  if (count > kMaxKeys) {
    return fail(
        fmt::format("{}: {} metadata keys, expected at most {}", cursor.file(), count, kMaxKeys));
  }
  GgufMetadata metadata;
  metadata.file_ = cursor.file();
  for (uint64_t i = 0; i < count; ++i) {
    KVCAST_TRY(const auto key, cursor.read_string(fmt::format("key {} of the metadata", i)));
    KVCAST_TRY(Value value, parse_value(cursor, fmt::format("metadata {}", key)));
    if (!metadata.values_.emplace(key, value).second) {
      return fail(fmt::format("{}: metadata {}: appears twice", cursor.file(), key));
    }
  }
  return metadata;
}

Result<GgufMetadata::Value> GgufMetadata::parse_value(GgufCursor& cursor, const std::string& what) {
  Value value;
  KVCAST_TRY(value.type, cursor.read<GgufType>(what));
  if (value.type == GgufType::kArray) {
    value.is_array = true;
    KVCAST_TRY(value.type, cursor.read<GgufType>(what));
    KVCAST_TRY(value.count, cursor.read<uint64_t>(what));
  }
  const auto size = element_bytes(value.type);
  if (!size) {
    return fail(fmt::format("{}: {}: {} of type {}, expected a number, a truth value or a string",
                            cursor.file(), what, value.is_array ? "an array" : "a value",
                            static_cast<uint32_t>(value.type)));
  }
  if (value.type == GgufType::kString) {
    GgufCursor ahead = cursor;
    for (uint64_t i = 0; i < value.count; ++i) KVCAST_CHECK(ahead.read_string(what));
    KVCAST_TRY(value.bytes, cursor.take(ahead.position() - cursor.position(), what));
    return value;
  }
  const uint64_t bytes =
      checked_multiply(value.count, *size).value_or(std::numeric_limits<uint64_t>::max());
  KVCAST_TRY(value.bytes, cursor.take(bytes, what));
  if (value.type == GgufType::kBool) {
    for (const std::byte each : value.bytes) {
      if (each > std::byte{1}) {
        return fail(fmt::format("{}: {}: truth value {}, expected 0 or 1", cursor.file(), what,
                                std::to_integer<int>(each)));
      }
    }
  }
  return value;
}

tl::unexpected<Error> GgufMetadata::wrong(std::string_view key, std::string_view expected) const {
  return fail(fmt::format("{}: metadata {}: expected {}", file_, key, expected));
}

Result<GgufMetadata::Value> GgufMetadata::find(std::string_view key) const {
  const auto found = values_.find(key);
  if (found == values_.end()) {
    return fail(fmt::format("{}: metadata {}: missing", file_, key));
  }
  return found->second;
}

Result<GgufMetadata::Value> GgufMetadata::find_single(std::string_view key,
                                                      std::string_view expected) const {
  KVCAST_TRY(const Value value, find(key));
  if (value.is_array) return wrong(key, fmt::format("{}, found an array", expected));
  return value;
}

template <typename T>
Result<std::vector<T>> GgufMetadata::elements(std::string_view key, const Value& value,
                                              std::string_view expected) const {
  std::vector<T> result;
  bool fits = value.type != GgufType::kBool;
  const bool is_number = with_type(value.type, [&](auto element) {
    using Stored = decltype(element);
    if constexpr (std::is_integral_v<T> && std::is_floating_point_v<Stored>) {
      fits = false;
    } else if (fits) {
      result.reserve(value.count);  // no more than 8 times what is in the file
      for (uint64_t i = 0; i < value.count && fits; ++i) {
        std::memcpy(&element, value.bytes.data() + i * sizeof element, sizeof element);
        if constexpr (std::is_same_v<T, int64_t> && std::is_same_v<Stored, uint64_t>) {
          fits = element <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
        }
        result.push_back(static_cast<T>(element));
      }
    }
  });
  if (!is_number || !fits) return wrong(key, expected);
  return result;
}

Result<std::string_view> GgufMetadata::text(std::string_view key) const {
  KVCAST_TRY(const Value value, find_single(key, "a string"));
  if (value.type != GgufType::kString) return wrong(key, "a string");
  return GgufCursor(file_, value.bytes).read_string(key);
}

Result<int64_t> GgufMetadata::integer(std::string_view key) const {
  KVCAST_TRY(const Value value, find_single(key, "an integer"));
  KVCAST_TRY(const auto values, elements<int64_t>(key, value, "an integer"));
  return values.front();
}

Result<double> GgufMetadata::number(std::string_view key) const {
  KVCAST_TRY(const Value value, find_single(key, "a number"));
  KVCAST_TRY(const auto values, elements<double>(key, value, "a number"));
  return values.front();
}

Result<bool> GgufMetadata::boolean(std::string_view key) const {
  KVCAST_TRY(const Value value, find_single(key, "true or false"));
  if (value.type != GgufType::kBool) return wrong(key, "true or false");
  return value.bytes[0] == std::byte{1};
}

Result<std::vector<std::string_view>> GgufMetadata::texts(std::string_view key) const {
  KVCAST_TRY(const Value value, find(key));
  if (value.type != GgufType::kString || !value.is_array) return wrong(key, "an array of strings");
  std::vector<std::string_view> result;
  result.reserve(value.count);
  GgufCursor cursor(file_, value.bytes);
  for (uint64_t i = 0; i < value.count; ++i) {
    KVCAST_TRY(const auto text, cursor.read_string(key));
    result.push_back(text);
  }
  return result;
}

Result<std::vector<int64_t>> GgufMetadata::integers(std::string_view key) const {
  KVCAST_TRY(const Value value, find(key));
  return elements<int64_t>(key, value, "an array of integers");
}

Result<std::vector<double>> GgufMetadata::numbers(std::string_view key) const {
  KVCAST_TRY(const Value value, find(key));
  return elements<double>(key, value, "an array of numbers");
}

std::string GgufMetadata::without_tensors() const {
  constexpr uint32_t kVersion = 3;
  std::string pairs;
  uint64_t count = 0;
  const auto append = [](std::string& to, const auto& value) {
    to.append(reinterpret_cast<const char*>(&value), sizeof value);
  };
  for (const auto& [key, value] : values_) {
    if (key.starts_with("split.")) continue;
    append(pairs, uint64_t{key.size()});
    pairs += key;
    if (value.is_array) append(pairs, GgufType::kArray);
    append(pairs, value.type);
    if (value.is_array) append(pairs, value.count);
    pairs.append(reinterpret_cast<const char*>(value.bytes.data()), value.bytes.size());
    ++count;
  }
  std::string file = "GGUF";
  append(file, kVersion);
  append(file, uint64_t{0});
  append(file, count);
  return file + pairs;
}

}  // namespace kvcast
