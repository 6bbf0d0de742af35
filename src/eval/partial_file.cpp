#include "eval/partial_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "base/macros.h"
#include "base/mapped_file.h"
#include "io/json.h"

namespace kvcast {
namespace {

Json to_json(const PartialFile::Record& record) {
  Json scores = Json::array();
  for (const ExampleScore& score : record.scores) {
    scores.push_back({{"metrics", score.metrics}, {"output", score.output}});
  }
  return {{"example", record.example}, {"scores", std::move(scores)}};
}

/// Nothing for a line that is not whole or not a record.
std::optional<PartialFile::Record> parse_record(std::string_view line) {
  const Json json = Json::parse(line, nullptr, false);
  try {
    PartialFile::Record record{json.at("example").get<size_t>(), {}};
    for (const Json& score : json.at("scores")) {
      record.scores.push_back(
          {score.at("metrics").get<std::vector<double>>(), score.at("output").get<std::string>()});
    }
    return record;
  } catch (const Json::exception&) {
    return std::nullopt;
  }
}

}  // namespace

Result<PartialFile> PartialFile::open(const std::filesystem::path& path,
                                      const std::string& identity) {
  PartialFile file;
  file.path_ = path;
  std::error_code ignored;
  size_t whole = 0;  // bytes up to the end of the last whole record
  if (std::filesystem::exists(path, ignored)) {
    KVCAST_TRY(const std::string text, read_text_file(path));
    const size_t first_end = text.find('\n');
    if (first_end != std::string::npos) {
      if (std::string_view(text).substr(0, first_end) != identity) {
        return fail(fmt::format(
            "{}: holds examples of another run (model, data, options or build differ); remove it "
            "to start afresh",
            path.string()));
      }
      whole = first_end + 1;
    }
    while (whole > 0 && whole < text.size()) {
      const size_t end = text.find('\n', whole);
      if (end == std::string::npos) break;
      auto record = parse_record(std::string_view(text).substr(whole, end - whole));
      if (!record) break;
      file.records_.push_back(std::move(*record));
      whole = end + 1;
    }
  }
  const auto failure = [&](const char* action) {
    return fail(fmt::format("{}: cannot {}: {}", path.string(), action, std::strerror(errno)));
  };
  file.fd_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
  if (file.fd_ < 0) return failure("write");
  if (ftruncate(file.fd_, static_cast<off_t>(whole)) != 0 || lseek(file.fd_, 0, SEEK_END) < 0) {
    return failure("write");
  }
  if (whole == 0 && dprintf(file.fd_, "%s\n", identity.c_str()) < 0) return failure("write");
  return file;
}

PartialFile::~PartialFile() {
  if (fd_ >= 0) ::close(fd_);
}

PartialFile::PartialFile(PartialFile&& other) noexcept { *this = std::move(other); }

PartialFile& PartialFile::operator=(PartialFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  std::swap(records_, other.records_);
  return *this;
}

Status PartialFile::append(const std::vector<Record>& records) {
  if (fd_ < 0) return {};
  std::string text;
  for (const Record& record : records) {
    text += to_json(record).dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  }
  for (std::string_view rest = text; !rest.empty();) {
    const ssize_t written = ::write(fd_, rest.data(), rest.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      return fail(fmt::format("{}: cannot write: {}", path_.string(), std::strerror(errno)));
    }
    rest.remove_prefix(static_cast<size_t>(written));
  }
  return {};
}

void PartialFile::remove() {
  if (fd_ >= 0) ::unlink(path_.c_str());
}

}  // namespace kvcast
