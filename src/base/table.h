#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace kvcast {

/// Rows of text under headers, printed as Markdown or CSV.
struct Table {
  std::vector<std::string> headers;
  std::vector<std::vector<std::string>> rows;  ///< as many cells as headers each
  size_t text_columns = 1;  ///< this many leading columns are left-aligned, the rest are numbers

  /// Columns padded to equal width.
  [[nodiscard]] std::string to_markdown() const;
  [[nodiscard]] std::string to_csv() const;
};

/// 1234567 -> "1,234,567".
std::string with_thousands(long long number);

}  // namespace kvcast
