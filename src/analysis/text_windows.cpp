#include "analysis/text_windows.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>

#include "base/macros.h"

namespace kvcast::analysis {
namespace {

constexpr std::string_view kDocumentEnd = "<|endoftext|>";
constexpr size_t kPieceBytes = 64 << 10;

bool ends_document(std::string_view line) {
  while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.remove_suffix(1);
  return line == kDocumentEnd;
}

}  // namespace

Result<TextWindows> TextWindows::open(const std::filesystem::path& file, const Model& model,
                                      int64_t window_tokens) {
  std::error_code ignored;
  std::ifstream stream(file, std::ios::binary);
  if (!stream || std::filesystem::is_directory(file, ignored)) {
    return fail(fmt::format("{}: cannot read the text: {}", file.string(),
                            stream ? "it is a directory" : std::strerror(errno)));
  }
  return TextWindows(file, std::move(stream), model, window_tokens);
}

std::string TextWindows::read_piece() {
  std::string piece;
  for (int c; piece.size() < kPieceBytes && (c = file_.get()) != EOF;) {
    piece += static_cast<char>(c);
    if (c == '\n') break;
  }
  return piece;
}

Result<std::vector<int32_t>> TextWindows::next() {
  const auto wanted = static_cast<size_t>(window_tokens_);
  std::string text;
  size_t enough_bytes = 3 * wanted;  // growing, or tokenizing again and again would be quadratic
  while (true) {
    const std::string piece = read_piece();
    if (file_.bad()) return fail(fmt::format("{}: cannot be read", path_.string()));
    const bool document_ends = piece.empty() || ends_document(piece);
    if (!document_ends) text += piece;
    if (text.size() >= enough_bytes || (document_ends && text.size() + 2 >= wanted)) {
      KVCAST_TRY(auto tokens, model_->tokenize(text));
      if (tokens.size() >= wanted) {
        tokens.resize(wanted);
        return tokens;
      }
      enough_bytes = text.size() + text.size() / 2;
    }
    if (piece.empty()) return std::vector<int32_t>();
    if (document_ends) text.clear();
  }
}

}  // namespace kvcast::analysis
