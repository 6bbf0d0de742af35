// Paths where something else than the expected file is, and output that cannot be written.
#include <sys/stat.h>
#include <unistd.h>

#include "base/atomic_file.h"
#include "base/mapped_file.h"
#include "io/gguf.h"
#include "malformed/malformed.h"

namespace kvcast {
namespace {

using Files = MalformedTest;

TEST_F(Files, APathThatIsNoDirectoryIsRefused) {
  root_.write("file", "x");
  for (const char* path : {"file", "nowhere", "file/below"}) {
    expect_load_error(root_.path() / path, {path, "expected a model directory", "config.json"});
  }
  expect_load_error("", {"expected a model directory"});
  expect_load_error(root_.path() / "line\nbreak", {"break", "expected a model directory"});
  expect_load_error(root_.path() / std::string(100'000, 'x'), {"expected a model directory"});
}

TEST_F(Files, AnEmptyDirectorySaysWhatItLacks) {
  expect_load_error(root_.path(), {"config.json", "cannot open"});
}

TEST_F(Files, ADirectoryInPlaceOfAFileIsRefused) {
  for (const char* file :
       {"kvcast.json", "predictor.safetensors", "base/config.json", "base/model.safetensors",
        "auxiliary/config.json", "auxiliary/model.safetensors"}) {
    TemporaryDirectory root;
    bundle_.write(root);
    std::filesystem::remove(root.path() / file);
    std::filesystem::create_directory(root.path() / file);
    expect_load_error(root.path(), {file, "not a regular file"});
  }
}

TEST_F(Files, APipeInPlaceOfAFileIsRefusedInsteadOfWaitedFor) {
  for (const char* file : {"config.json", "model.safetensors", "tokenizer.model"}) {
    TemporaryDirectory root;
    model_.write(root);
    std::filesystem::remove(root.path() / file);
    ASSERT_EQ(mkfifo((root.path() / file).c_str(), 0600), 0);
    expect_load_error(root.path(), {file, "not a regular file"});
  }
  // Both are asked first whether they are GGUF files.
  TemporaryDirectory root;
  model_.write(root);
  std::filesystem::remove(root.path() / "tokenizer.model");
  ASSERT_EQ(mkfifo((root.path() / "tokenizer.gguf").c_str(), 0600), 0);
  EXPECT_FALSE(is_gguf_file(root.path() / "tokenizer.gguf"));
  expect_load_error(root.path() / "tokenizer.gguf",
                    {"tokenizer.gguf", "expected a model directory"});
}

TEST_F(Files, AFileThatMayNotBeReadIsNamed) {
  if (geteuid() == 0) GTEST_SKIP() << "root may read everything";
  model_.write(root_);
  std::filesystem::permissions(root_.path() / "model.safetensors", std::filesystem::perms::none);
  expect_load_error(root_.path(), {"model.safetensors", "cannot open", "Permission denied"});
}

TEST_F(Files, ALinkThatLeadsNowhereIsNamed) {
  model_.write(root_);
  std::filesystem::remove(root_.path() / "config.json");
  std::filesystem::create_symlink("nowhere.json", root_.path() / "config.json");
  expect_load_error(root_.path(), {"config.json", "cannot open"});
}

TEST_F(Files, ATextFileOfAbsurdSizeIsRefusedWithoutReadingIt) {
  model_.write(root_);
  for (const char* file : {"config.json", "tokenizer.model"}) {  // sparse: no disk is used
    std::filesystem::resize_file(root_.path() / "config.json", model_.config.dump().size());
    root_.write(file, "{");
    std::filesystem::resize_file(root_.path() / file, uintmax_t{1} << 32);
    expect_load_error(root_.path(), {file, "bytes", "expected at most"});
    model_.write(root_);
  }
}

TEST_F(Files, AnAbandonedOutputLeavesNothing) {
  {
    auto file = AtomicFile::create(root_.path() / "out");
    ASSERT_TRUE(file);
    EXPECT_TRUE((*file)->write(std::as_bytes(std::span("half"))));
  }
  EXPECT_TRUE(std::filesystem::is_empty(root_.path()));
}

TEST_F(Files, OutputThatCannotBeWrittenIsNamedAndLeavesNothing) {
  root_.write("file", "x");
  std::filesystem::create_directory(root_.path() / "directory");
  for (const char* path : {"nowhere/out", "file/out", "directory", "directory/"}) {
    const auto status = write_file_atomically(root_.path() / path, "text");
    ASSERT_FALSE(status) << path;
    expect_one_line(status.error().message);
    EXPECT_THAT(status.error().message, testing::HasSubstr(path));
  }
  EXPECT_TRUE(std::filesystem::is_empty(root_.path() / "directory"));
  EXPECT_EQ(*read_text_file(root_.path() / "file"), "x");
}

TEST_F(Files, OutputNeverReplacesADeviceOrAPipe) {
  const auto pipe = root_.path() / "pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  const auto status = write_file_atomically(pipe, "text");
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message, testing::HasSubstr("not a regular file"));
  EXPECT_TRUE(std::filesystem::is_fifo(pipe));
}

TEST_F(Files, OutputThroughALinkKeepsTheLink) {
  root_.write("target", "old");
  std::filesystem::create_symlink("target", root_.path() / "link");
  ASSERT_TRUE(write_file_atomically(root_.path() / "link", "new"));
  EXPECT_TRUE(std::filesystem::is_symlink(root_.path() / "link"));
  EXPECT_EQ(*read_text_file(root_.path() / "target"), "new");
}

}  // namespace
}  // namespace kvcast
