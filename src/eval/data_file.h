// Data sets as they are published: JSON Lines or plain text, gzip-compressed or not.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "io/json.h"
#include "kvcast/result.h"

namespace kvcast {

/// The whole file, decompressed if it is gzip; at most 1 GiB of text.
Result<std::string> read_data_file(const std::filesystem::path& path);

/// SHA-256 of the file's bytes as they are, in hexadecimal.
Result<std::string> sha256_of_file(const std::filesystem::path& path);
std::string sha256_of_text(std::string_view text);

/// One row of a data file, with errors that name the file, the line and the key.
class DataRow {
 public:
  DataRow(Json object, std::string where) : object_(std::move(object)), where_(std::move(where)) {}

  [[nodiscard]] bool has(std::string_view key) const { return object_.contains(key); }
  [[nodiscard]] Result<std::string> text(std::string_view key) const;
  [[nodiscard]] Result<std::vector<std::string>> texts(std::string_view key) const;
  /// A whole number in [0, below).
  [[nodiscard]] Result<size_t> index(std::string_view key, size_t below) const;
  /// The object under `key`.
  [[nodiscard]] Result<DataRow> object(std::string_view key) const;
  /// "file line 12: message"
  [[nodiscard]] tl::unexpected<Error> error(std::string_view message) const;

 private:
  Json object_;
  std::string where_;
};

/// The rows of a JSON Lines file; at most `limit` if that is not 0. A file without any is an error.
Result<std::vector<DataRow>> read_rows(const std::filesystem::path& path, size_t limit);

/// The documents of a text file: for .jsonl (and .jsonl.gz) the `text` (or `content`) of each row,
/// else the whole file as one.
Result<std::vector<std::string>> read_documents(const std::filesystem::path& path);

}  // namespace kvcast
