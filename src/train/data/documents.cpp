#include "train/data/documents.h"

#include <fmt/format.h>
#include <zlib.h>
#include <zstd.h>

#include <cstdio>
#include <cstring>
#include <vector>

#include "base/utf8.h"
#include "io/json.h"
#include "train/data/error.h"

namespace kvcast::train {
namespace {

constexpr std::string_view kEndOfText = "<|endoftext|>";
constexpr size_t kReadBytes = size_t{1} << 20;
/// Packed files may need a window of this many bytes (log2); the zstd library's default is 27.
constexpr int kMaxWindowLog = 31;

struct FileCloser {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

/// Cuts a stream of chunks into lines.
class ChunkedLines : public LineReader {
 public:
  bool next(std::string& line) override {
    line.clear();
    line_start_ = taken_;
    while (true) {
      const char* begin = chunk_.data() + position_;
      const size_t left = chunk_.size() - position_;
      if (const void* end = left > 0 ? std::memchr(begin, '\n', left) : nullptr) {
        const size_t length = static_cast<const char*>(end) - begin;
        line.append(begin, length);
        position_ += length + 1;
        taken_ += static_cast<int64_t>(length) + 1;
        break;
      }
      line.append(begin, left);
      taken_ += static_cast<int64_t>(left);
      position_ = 0;
      if (!read_chunk(chunk_)) {
        chunk_.clear();
        if (line.empty()) return false;
        break;
      }
    }
    if (!line.empty() && line.back() == '\r') line.pop_back();
    return true;
  }
  [[nodiscard]] int64_t line_start() const override { return line_start_; }

 protected:
  /// Replaces `chunk` by the next one, never empty; false at the end.
  virtual bool read_chunk(std::vector<char>& chunk) = 0;

 private:
  std::vector<char> chunk_;
  size_t position_ = 0;
  int64_t taken_ = 0, line_start_ = 0;  // bytes handed out; those before the last line
};

class PlainLines : public ChunkedLines {
 public:
  explicit PlainLines(const std::filesystem::path& path)
      : path_(path), file_(std::fopen(path.c_str(), "rb")) {
    if (!file_) throw TrainError(path.string() + ": cannot open: " + std::strerror(errno));
  }

 protected:
  bool read_chunk(std::vector<char>& chunk) override {
    chunk.resize(kReadBytes);
    chunk.resize(std::fread(chunk.data(), 1, chunk.size(), file_.get()));
    if (chunk.empty() && std::ferror(file_.get())) {
      throw TrainError(path_.string() + ": cannot read: " + std::strerror(errno));
    }
    return !chunk.empty();
  }

 private:
  std::filesystem::path path_;
  std::unique_ptr<std::FILE, FileCloser> file_;
};

struct DecoderFreer {
  void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
};

class ZstdLines : public ChunkedLines {
 public:
  explicit ZstdLines(const std::filesystem::path& path)
      : path_(path), file_(std::fopen(path.c_str(), "rb")), decoder_(ZSTD_createDCtx()) {
    if (!file_) throw TrainError(path.string() + ": cannot open: " + std::strerror(errno));
    ZSTD_DCtx_setParameter(decoder_.get(), ZSTD_d_windowLogMax, kMaxWindowLog);
  }

 protected:
  bool read_chunk(std::vector<char>& chunk) override {
    chunk.resize(ZSTD_DStreamOutSize() * 8);
    ZSTD_outBuffer out{chunk.data(), chunk.size(), 0};
    while (out.pos == 0) {
      if (in_.pos == in_.size && !output_pending_) {
        packed_.resize(ZSTD_DStreamInSize());
        in_ = {packed_.data(), std::fread(packed_.data(), 1, packed_.size(), file_.get()), 0};
        if (in_.size == 0) {
          if (!frame_complete_) throw TrainError(path_.string() + ": zstd data ends too early");
          return false;
        }
      }
      const size_t status = ZSTD_decompressStream(decoder_.get(), &out, &in_);
      if (ZSTD_isError(status)) {
        throw TrainError(path_.string() + ": not zstd data: " + ZSTD_getErrorName(status));
      }
      frame_complete_ = status == 0;
      output_pending_ = out.pos == out.size && !frame_complete_;
    }
    chunk.resize(out.pos);
    return true;
  }

 private:
  std::filesystem::path path_;
  std::unique_ptr<std::FILE, FileCloser> file_;
  std::unique_ptr<ZSTD_DCtx, DecoderFreer> decoder_;
  std::vector<char> packed_;
  ZSTD_inBuffer in_{nullptr, 0, 0};
  bool frame_complete_ = true, output_pending_ = false;
};

struct GzipCloser {
  void operator()(gzFile file) const { gzclose_r(file); }
};

class GzipLines : public ChunkedLines {
 public:
  explicit GzipLines(const std::filesystem::path& path)
      : path_(path), file_(gzopen(path.c_str(), "rb")) {
    if (!file_) throw TrainError(path.string() + ": cannot open: " + std::strerror(errno));
  }

 protected:
  bool read_chunk(std::vector<char>& chunk) override {
    chunk.resize(kReadBytes);
    const int count = gzread(file_.get(), chunk.data(), static_cast<unsigned>(chunk.size()));
    int error = Z_OK;
    const char* message = gzerror(file_.get(), &error);
    // A file that is cut short reads as Z_BUF_ERROR; zlib passes plain text through as it is.
    if (count < 0 || error != Z_OK || gzdirect(file_.get()) != 0) {
      throw TrainError(path_.string() + ": not whole gzip data: " + message);
    }
    chunk.resize(static_cast<size_t>(count));
    return count > 0;
  }

 private:
  std::filesystem::path path_;
  std::unique_ptr<gzFile_s, GzipCloser> file_;
};

bool is_blank(const std::string& text) {
  return text.find_first_not_of(" \t\r\n") == std::string::npos;
}

}  // namespace

std::unique_ptr<LineReader> LineReader::open(const std::filesystem::path& path) {
  if (path.extension() == ".zst") return std::make_unique<ZstdLines>(path);
  if (path.extension() == ".gz") return std::make_unique<GzipLines>(path);
  return std::make_unique<PlainLines>(path);
}

DocumentReader::DocumentReader(const std::filesystem::path& path, TextEncoding encoding)
    : path_(path), encoding_(encoding) {
  const bool packed = path.extension() == ".zst" || path.extension() == ".gz";
  const auto unpacked = packed ? path.stem() : path.filename();
  json_ = unpacked.extension() == ".jsonl";
  if (!json_ && unpacked.extension() != ".txt") {
    throw TrainError(path.string() + ": expected a .txt or .jsonl file, or either as .zst or .gz");
  }
  lines_ = LineReader::open(path);
}

std::optional<std::string> DocumentReader::next() {
  while (true) {
    auto document = json_ ? next_json() : next_text();
    if (!document || !is_blank(*document)) return document;
  }
}

bool DocumentReader::next_line(std::string& line) {
  if (!lines_->next(line)) return false;
  const size_t valid = valid_utf8_prefix(line);
  if (valid == line.size()) return true;
  if (encoding_ == TextEncoding::kReplace) {
    line = replace_invalid_utf8(line);
    return true;
  }
  throw TrainError(fmt::format(
      "{}: byte {}: not UTF-8; encoding = \"replace\" in its [[source]] puts U+FFFD for such bytes",
      path_.string(), lines_->line_start() + static_cast<int64_t>(valid)));
}

std::optional<std::string> DocumentReader::next_text() {
  std::string document, line;
  bool any = false;
  while (next_line(line)) {
    any = true;
    if (line == kEndOfText) break;
    document += line;
    document += '\n';
  }
  if (!any) return std::nullopt;
  while (!document.empty() && document.back() == '\n') document.pop_back();
  return document;
}

std::optional<std::string> DocumentReader::next_json() {
  std::string line;
  if (!next_line(line)) return std::nullopt;
  ++line_number_;
  if (is_blank(line)) return std::string();
  const std::string where = fmt::format("{}: line {}", path_.string(), line_number_);
  const Json object = unwrap(parse_json(line, where));
  const auto field = [&](const char* key) -> std::optional<std::string> {
    if (!object.is_object()) return std::nullopt;
    const auto found = object.find(key);
    if (found == object.end() || !found->is_string()) return std::nullopt;
    return found->get<std::string>();
  };
  if (auto text = field("text")) return text;
  const auto question = field("question"), answer = field("answer");
  if (!question || !answer) {
    throw TrainError(where + R"(: expected a string "text", or "question" and "answer")");
  }
  return "Question: " + *question + "\nAnswer: " + *answer;
}

}  // namespace kvcast::train
