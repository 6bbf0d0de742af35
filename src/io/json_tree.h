// From the parser's events to a Json. A reader of a format with large parts derives from it and
// takes their events for itself, so that no tree of them is made.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "io/json.h"
#include "kvcast/result.h"

namespace kvcast {

/// One text per object. What two readers of one text could understand differently, or could not
/// hold, is refused: keys that appear twice in an object, nesting deeper than 64 levels.
class JsonTree : public nlohmann::json_sax<Json> {
 public:
  /// Trailing bytes are an error. `where` names the source in messages.
  Result<Json> parse(std::string_view text, std::string_view where);

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(int64_t value) override { return add(value); }
  bool number_unsigned(uint64_t value) override { return add(value); }
  bool number_float(double value, const std::string& /*text*/) override { return add(value); }
  bool string(std::string& value) override { return add(std::move(value)); }
  bool binary(Json::binary_t& /*value*/) override { return refuse("not valid JSON: binary data"); }
  bool start_object(size_t elements) override;
  bool key(std::string& name) override;
  bool end_object() override;
  bool start_array(size_t elements) override;
  bool end_array() override;
  bool parse_error(size_t position, const std::string& token,
                   const nlohmann::detail::exception& error) override;

 protected:
  /// How many objects and lists are open.
  [[nodiscard]] size_t depth() const { return open_.size(); }
  /// Ends the parse with "WHERE: reason"; to be returned from an event.
  bool refuse(std::string reason);

 private:
  bool add(Json value);
  bool open(Json empty);

  Json root_;
  std::vector<Json*> open_;
  Json* slot_ = nullptr;  // of the last key, in the innermost object
  std::string reason_;
};

}  // namespace kvcast
