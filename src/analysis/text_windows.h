#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "kvcast/model.h"

namespace kvcast::analysis {

/// Cuts a text file into windows of equal length in tokens: BOS, then text from the beginning of a
/// line (of a piece, where lines are very long). Documents end with a line `<|endoftext|>` or the
/// file; a window never crosses two. Reads as it goes, so files may be of any size.
class TextWindows {
 public:
  /// `model` must have a tokenizer and outlive the object. `window_tokens` >= 2.
  static Result<TextWindows> open(const std::filesystem::path& file, const Model& model,
                                  int64_t window_tokens);

  /// The next window, or an empty one at the end of the file.
  Result<std::vector<int32_t>> next();

 private:
  TextWindows(std::filesystem::path path, std::ifstream file, const Model& model,
              int64_t window_tokens)
      : path_(std::move(path)),
        file_(std::move(file)),
        model_(&model),
        window_tokens_(window_tokens) {}
  /// The next line with its end, or a piece of one that is very long; empty at the end.
  std::string read_piece();

  std::filesystem::path path_;
  std::ifstream file_;
  const Model* model_;
  int64_t window_tokens_;
};

}  // namespace kvcast::analysis
