// Documents out of text files, one after another in constant memory.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "train/data/recipe.h"

namespace kvcast::train {

/// The bytes of a file, unpacked if its name ends in .zst or .gz, line by line without the line
/// end.
class LineReader {
 public:
  virtual ~LineReader() = default;
  /// False at the end. `line` is reused.
  virtual bool next(std::string& line) = 0;
  /// Where the last line begins: bytes of the unpacked text before it.
  [[nodiscard]] virtual int64_t line_start() const = 0;
  static std::unique_ptr<LineReader> open(const std::filesystem::path& path);
};

/// .txt: documents end with a line that holds only <|endoftext|> (the last one may lack it).
/// .jsonl: one object a line, with "text", or with "question" and "answer", which become
/// "Question: ...\nAnswer: ...". Either may be packed as .zst or .gz. Throws TrainError naming file
/// and line, or the offset of the first byte that is not UTF-8 (TextEncoding::kReplace: such bytes
/// become U+FFFD). Not thread-safe.
class DocumentReader {
 public:
  explicit DocumentReader(const std::filesystem::path& path,
                          TextEncoding encoding = TextEncoding::kUtf8);
  /// The next document that is not blank, or nothing at the end.
  std::optional<std::string> next();

 private:
  bool next_line(std::string& line);
  std::optional<std::string> next_text();
  std::optional<std::string> next_json();

  std::filesystem::path path_;
  std::unique_ptr<LineReader> lines_;
  TextEncoding encoding_;
  bool json_ = false;
  int64_t line_number_ = 0;
};

}  // namespace kvcast::train
