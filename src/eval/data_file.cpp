#include "eval/data_file.h"

#include <fmt/format.h>
#include <sha2.h>
#include <zlib.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>

#include "base/macros.h"
#include "base/mapped_file.h"

namespace kvcast {
namespace {

constexpr size_t kMostBytes = size_t{1} << 30U;

bool is_json_lines(const std::filesystem::path& path) {
  const auto name = path.extension() == ".gz" ? path.stem() : path;
  return name.extension() == ".jsonl";
}

template <typename Update>
std::string sha256(const Update& update) {
  SHA2_CTX context;
  SHA256Init(&context);
  update(context);
  std::array<char, SHA256_DIGEST_STRING_LENGTH> text{};
  SHA256End(&context, text.data());
  return text.data();
}

}  // namespace

Result<std::string> read_data_file(const std::filesystem::path& path) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) {
    return fail(fmt::format("{}: not a file; expected a data set", path.string()));
  }
  std::unique_ptr<gzFile_s, int (*)(gzFile)> file(gzopen(path.c_str(), "rb"), gzclose_r);
  if (!file) return fail(fmt::format("{}: cannot read: {}", path.string(), std::strerror(errno)));
  std::string text;
  std::vector<char> block(size_t{1} << 18U);
  while (true) {
    const int count = gzread(file.get(), block.data(), static_cast<unsigned>(block.size()));
    if (count < 0) {
      int code = 0;
      return fail(
          fmt::format("{}: damaged gzip data: {}", path.string(), gzerror(file.get(), &code)));
    }
    if (count == 0) break;
    text.append(block.data(), static_cast<size_t>(count));
    if (text.size() > kMostBytes) {
      return fail(fmt::format("{}: more than 1 GiB of text", path.string()));
    }
  }
  if (gzclose_r(file.release()) == Z_BUF_ERROR) {
    return fail(fmt::format("{}: the gzip data end too soon", path.string()));
  }
  return text;
}

Result<std::string> sha256_of_file(const std::filesystem::path& path) {
  KVCAST_TRY(const auto file, MappedFile::open(path));
  const auto bytes = file->bytes();
  return sha256([&](SHA2_CTX& context) {
    SHA256Update(&context, reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  });
}

std::string sha256_of_text(std::string_view text) {
  return sha256([&](SHA2_CTX& context) {
    SHA256Update(&context, reinterpret_cast<const uint8_t*>(text.data()), text.size());
  });
}

tl::unexpected<Error> DataRow::error(std::string_view message) const {
  return fail(fmt::format("{}: {}", where_, message));
}

Result<std::string> DataRow::text(std::string_view key) const {
  const auto value = object_.find(key);
  if (value == object_.end() || !value->is_string()) {
    return error(fmt::format("expected a text under \"{}\"", key));
  }
  return value->get<std::string>();
}

Result<std::vector<std::string>> DataRow::texts(std::string_view key) const {
  const auto value = object_.find(key);
  std::vector<std::string> texts;
  if (value != object_.end() && value->is_array()) {
    for (const Json& text : *value) {
      if (text.is_string()) texts.push_back(text.get<std::string>());
    }
  }
  if (texts.empty() || texts.size() != value->size()) {
    return error(fmt::format("expected a list of texts under \"{}\"", key));
  }
  return texts;
}

Result<size_t> DataRow::index(std::string_view key, size_t below) const {
  const auto value = object_.find(key);
  if (value == object_.end() || !value->is_number_unsigned() || value->get<uint64_t>() >= below) {
    return error(fmt::format("expected a whole number below {} under \"{}\"", below, key));
  }
  return value->get<size_t>();
}

Result<DataRow> DataRow::object(std::string_view key) const {
  const auto value = object_.find(key);
  if (value == object_.end() || !value->is_object()) {
    return error(fmt::format("expected an object under \"{}\"", key));
  }
  return DataRow(*value, fmt::format("{}, \"{}\"", where_, key));
}

Result<std::vector<DataRow>> read_rows(const std::filesystem::path& path, size_t limit) {
  KVCAST_TRY(const std::string text, read_data_file(path));
  std::vector<DataRow> rows;
  size_t line_number = 0;
  for (size_t begin = 0; begin < text.size() && (limit == 0 || rows.size() < limit);) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = std::string_view(text).substr(begin, end - begin);
    begin = end + 1;
    ++line_number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string where = fmt::format("{} line {}", path.string(), line_number);
    KVCAST_TRY(Json json, parse_json(line, where));
    if (!json.is_object()) return fail(fmt::format("{}: expected a JSON object", where));
    rows.emplace_back(std::move(json), where);
  }
  if (rows.empty()) return fail(fmt::format("{}: no rows; expected JSON Lines", path.string()));
  return rows;
}

Result<std::vector<std::string>> read_documents(const std::filesystem::path& path) {
  std::vector<std::string> documents;
  if (!is_json_lines(path)) {
    KVCAST_TRY(documents.emplace_back(), read_data_file(path));
    return documents;
  }
  KVCAST_TRY(const auto rows, read_rows(path, 0));
  for (const DataRow& row : rows) {
    KVCAST_TRY(documents.emplace_back(), row.text(row.has("text") ? "text" : "content"));
  }
  return documents;
}

}  // namespace kvcast
