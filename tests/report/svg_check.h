// A strict reader of the XML that figures and pages are made of: enough to tell whether a file is
// well formed and what is in it.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kvcast::report {

struct XmlElement {
  std::string name;
  std::map<std::string, std::string> attributes;  // not unescaped
  std::string text;                               // directly inside, not unescaped
  std::vector<size_t> children;                   // indices into XmlDocument::elements
};

class XmlDocument {
 public:
  /// nullopt if the text is not well formed.
  static std::optional<XmlDocument> parse(std::string_view text) {
    XmlDocument document;
    document.rest_ = text;
    document.skip_space();
    if (!document.element() || (document.skip_space(), !document.rest_.empty()))
      return std::nullopt;
    return document;
  }

  /// All elements, a parent before its children.
  [[nodiscard]] const std::vector<XmlElement>& elements() const { return elements_; }

  /// Not of a temporary: the elements are the document's.
  std::vector<const XmlElement*> named(std::string_view name) const&& = delete;
  [[nodiscard]] std::vector<const XmlElement*> named(std::string_view name) const& {
    std::vector<const XmlElement*> found;
    for (const XmlElement& element : elements_) {
      if (element.name == name) found.push_back(&element);
    }
    return found;
  }

  /// Whether some element's text is `text`.
  [[nodiscard]] bool shows(std::string_view text) const {
    for (const XmlElement& element : elements_) {
      if (element.text == text) return true;
    }
    return false;
  }

 private:
  bool take(std::string_view token) {
    if (!rest_.starts_with(token)) return false;
    rest_.remove_prefix(token.size());
    return true;
  }
  void skip_space() {
    const auto at = rest_.find_first_not_of(" \n\t\r");
    rest_.remove_prefix(at == std::string_view::npos ? rest_.size() : at);
  }
  std::string name() {
    const auto end = rest_.find_first_not_of(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-:_");
    const std::string found(rest_.substr(0, end));
    rest_.remove_prefix(found.size());
    return found;
  }
  /// No raw <, and every & begins a reference.
  static bool is_escaped(std::string_view text) {
    for (size_t at = 0; at < text.size(); ++at) {
      if (text[at] == '<' || static_cast<unsigned char>(text[at]) < 0x09) return false;
      if (text[at] != '&') continue;
      const auto end = text.find(';', at);
      if (end == std::string_view::npos || end - at > 8) return false;
    }
    return true;
  }

  bool attributes(XmlElement& element) {
    while (true) {
      const size_t before = rest_.size();
      skip_space();
      if (rest_.starts_with(">") || rest_.starts_with("/>")) return true;
      if (rest_.size() == before) return false;  // no space between attributes
      const std::string key = name();
      if (key.empty() || !take("=\"")) return false;
      const auto end = rest_.find('"');
      if (end == std::string_view::npos || !is_escaped(rest_.substr(0, end))) return false;
      if (!element.attributes.emplace(key, rest_.substr(0, end)).second) return false;
      rest_.remove_prefix(end + 1);
    }
  }

  bool element() {
    if (!take("<")) return false;
    const size_t index = elements_.size();
    elements_.emplace_back();
    XmlElement found{.name = name(), .attributes = {}, .text = {}, .children = {}};
    if (found.name.empty() || !attributes(found)) return false;
    if (take("/>")) {
      elements_[index] = std::move(found);
      return true;
    }
    if (!take(">")) return false;
    while (!rest_.starts_with("</")) {
      const auto end = rest_.find('<');
      if (end == std::string_view::npos || !is_escaped(rest_.substr(0, end))) return false;
      found.text += rest_.substr(0, end);
      rest_.remove_prefix(end);
      if (rest_.starts_with("</")) break;
      found.children.push_back(elements_.size());
      if (!element()) return false;
    }
    if (!take("</" + found.name + ">")) return false;
    elements_[index] = std::move(found);
    return true;
  }

  std::string_view rest_;
  std::vector<XmlElement> elements_;
};

}  // namespace kvcast::report
