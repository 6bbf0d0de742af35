#include "io/json_tree.h"

#include <fmt/format.h>

#include <utility>

namespace kvcast {
namespace {

constexpr size_t kMaxJsonDepth = 64;

}  // namespace

Result<Json> JsonTree::parse(std::string_view text, std::string_view where) {
  const bool done =
      Json::sax_parse(text.begin(), text.end(), static_cast<nlohmann::json_sax<Json>*>(this));
  if (!done) return fail(fmt::format("{}: {}", where, reason_));
  return std::move(root_);
}

bool JsonTree::refuse(std::string reason) {
  reason_ = std::move(reason);
  return false;
}

bool JsonTree::add(Json value) {
  if (open_.empty()) {
    root_ = std::move(value);
  } else if (open_.back()->is_array()) {
    open_.back()->push_back(std::move(value));
  } else {
    *slot_ = std::move(value);
  }
  return true;
}

bool JsonTree::open(Json empty) {
  if (open_.size() == kMaxJsonDepth) {
    return refuse(fmt::format("JSON is nested deeper than {} levels", kMaxJsonDepth));
  }
  add(std::move(empty));
  Json* made = &root_;
  if (!open_.empty()) made = open_.back()->is_array() ? &open_.back()->back() : slot_;
  open_.push_back(made);
  return true;
}

bool JsonTree::start_object(size_t /*elements*/) { return open(Json::object()); }
bool JsonTree::start_array(size_t /*elements*/) { return open(Json::array()); }

bool JsonTree::end_object() {
  open_.pop_back();
  return true;
}
bool JsonTree::end_array() { return end_object(); }

bool JsonTree::key(std::string& name) {
  const auto [place, is_new] =
      open_.back()->get_ref<Json::object_t&>().try_emplace(std::move(name), nullptr);
  if (!is_new) return refuse(fmt::format("key \"{}\" appears twice", place->first));
  slot_ = &place->second;
  return true;
}

bool JsonTree::parse_error(size_t /*position*/, const std::string& /*token*/,
                           const nlohmann::detail::exception& error) {
  std::string reason = error.what();
  if (const auto end = reason.find("] "); end != std::string::npos) reason.erase(0, end + 2);
  return refuse("not valid JSON: " + reason);
}

}  // namespace kvcast
