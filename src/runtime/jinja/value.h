// Values of the template language. Only for src/runtime/jinja and chat_template.cpp.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace kvcast::jinja {

class Value;
using List = std::vector<Value>;
/// In the order of insertion; templates only ever have a handful of keys.
using Map = std::vector<std::pair<std::string, Value>>;
struct Undefined {};
struct None {};

/// Copies of lists and maps share their contents, as in Python.
class Value {
 public:
  using Variant = std::variant<Undefined, None, bool, int64_t, double, std::string,
                               std::shared_ptr<List>, std::shared_ptr<Map>>;
  Value() = default;
  template <typename T>
  requires std::is_constructible_v<Variant, T> Value(T value) : data_(std::move(value)) {}
  Value(const char* text) : data_(std::string(text)) {}
  Value(List list) : data_(std::make_shared<List>(std::move(list))) {}
  Value(Map map) : data_(std::make_shared<Map>(std::move(map))) {}

  template <typename T>
  [[nodiscard]] bool is() const {
    return std::holds_alternative<T>(data_);
  }
  template <typename T>
  [[nodiscard]] const T* get() const {
    return std::get_if<T>(&data_);
  }
  [[nodiscard]] const std::string* text() const { return get<std::string>(); }
  [[nodiscard]] List* list() const { return pointer<List>(); }
  [[nodiscard]] Map* map() const { return pointer<Map>(); }
  [[nodiscard]] bool is_number() const { return is<int64_t>() || is<double>(); }
  [[nodiscard]] double number() const;  ///< of an integer, a float or a bool

  [[nodiscard]] bool truthy() const;
  /// As Python's str(): "True", "None", "1.5", "['a', {'k': None}]".
  [[nodiscard]] std::string to_text() const;
  /// As Python's json.dumps writes it; `indent` spaces a level, or all on one line if negative.
  [[nodiscard]] std::string to_json(int indent = -1, int depth = 0) const;
  [[nodiscard]] bool equals(const Value& other, int depth = 0) const;
  /// An entry of a map; undefined if there is none.
  [[nodiscard]] Value at(const std::string& key) const;
  void set(const std::string& key, Value value) const;

 private:
  template <typename T>
  [[nodiscard]] T* pointer() const {
    const auto* shared = std::get_if<std::shared_ptr<T>>(&data_);
    return shared ? shared->get() : nullptr;
  }
  [[nodiscard]] std::string to_repr(int depth) const;
  Variant data_;
};

/// What is wrong with a template or its use; thrown and caught within this folder and
/// chat_template.cpp.
struct TemplateError {
  std::string message;
};

/// Nested deeper than this, anything is an error.
inline constexpr int kMaxDepth = 64;

}  // namespace kvcast::jinja
