#include "kvcast/result.h"

#include <utility>

#include "base/utf8.h"

namespace kvcast {

std::string one_line(std::string text) {
  constexpr size_t kLongest = 1000, kBeginning = 700, kEnd = 250;
  if (text.size() > kLongest) {
    std::string_view beginning = std::string_view(text).substr(0, kBeginning);
    std::string_view end = std::string_view(text).substr(text.size() - kEnd);
    beginning = beginning.substr(0, settled_utf8_prefix(beginning));
    while (!end.empty() && (static_cast<unsigned char>(end[0]) & 0xC0U) == 0x80) {
      end.remove_prefix(1);  // the rest of a character that was cut
    }
    text = std::string(beginning) + " ... " + std::string(end);
  }
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = ' ';
  }
  return text;
}

tl::unexpected<Error> fail(std::string message) {
  return tl::unexpected<Error>(Error{one_line(std::move(message))});
}

}  // namespace kvcast
