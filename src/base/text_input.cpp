#include "base/text_input.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/macros.h"
#include "base/utf8.h"

namespace kvcast {
namespace {

constexpr size_t kMaxBytes = size_t{1} << 28;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

/// Until the end: what is read may be a pipe, which has no size.
Result<std::string> read_to_end(int descriptor, std::string_view name) {
  std::string text;
  std::string block(size_t{1} << 16, '\0');
  while (true) {
    const ssize_t bytes = read(descriptor, block.data(), block.size());
    if (bytes < 0 && errno == EINTR) continue;
    if (bytes < 0) return fail(fmt::format("{}: cannot read: {}", name, strerror(errno)));
    if (bytes == 0) return text;
    text.append(block, 0, static_cast<size_t>(bytes));
    if (text.size() > kMaxBytes) {
      return fail(fmt::format("{}: expected at most {} bytes of text", name, kMaxBytes));
    }
  }
}

}  // namespace

Result<std::string> check_text_input(std::string text, std::string_view name) {
  if (std::string_view(text).starts_with(kByteOrderMark)) text.erase(0, kByteOrderMark.size());
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = first_utf8_character(std::string_view(text).substr(at));
    if (step.kind != Utf8Kind::kCharacter) {
      return fail(fmt::format("{}: byte {:#04x} at offset {} is not UTF-8; expected UTF-8 text",
                              name, static_cast<unsigned char>(text[at]), at));
    }
    at += step.bytes;
  }
  return text;
}

Result<std::string> read_text_input(const std::filesystem::path& path) {
  const bool is_stdin = path == "-";
  const std::string name = is_stdin ? "standard input" : path.string();
  const int descriptor = is_stdin ? STDIN_FILENO : open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return fail(fmt::format("{}: cannot open: {}", name, strerror(errno)));
  auto text = read_to_end(descriptor, name);
  if (!is_stdin) close(descriptor);
  KVCAST_TRY(std::string all, std::move(text));
  return check_text_input(std::move(all), name);
}

}  // namespace kvcast
