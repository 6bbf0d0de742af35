#include "eval/data_file.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include "support/temporary_directory.h"

namespace kvcast {
namespace {

void write_gzip(const std::filesystem::path& path, const std::string& text) {
  gzFile file = gzopen(path.c_str(), "wb");
  ASSERT_NE(file, nullptr);
  ASSERT_EQ(gzwrite(file, text.data(), static_cast<unsigned>(text.size())),
            static_cast<int>(text.size()));
  ASSERT_EQ(gzclose(file), Z_OK);
}

TEST(DataFile, GzipAndPlainReadAlike) {
  const TemporaryDirectory directory;
  std::string text;
  for (int i = 0; i < 50000; ++i) text += std::to_string(i * 7919) + "\n";
  directory.write("plain.txt", text);
  write_gzip(directory.path() / "packed.txt.gz", text);
  EXPECT_EQ(*read_data_file(directory.path() / "plain.txt"), text);
  EXPECT_EQ(*read_data_file(directory.path() / "packed.txt.gz"), text);
}

TEST(DataFile, DamagedGzipIsAnError) {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "packed.gz";
  std::string text;
  for (int i = 0; i < 50000; ++i) text += std::to_string(i * 7919);
  write_gzip(path, text);
  const auto size = std::filesystem::file_size(path);
  std::filesystem::resize_file(path, size / 2);
  const auto cut = read_data_file(path);
  ASSERT_FALSE(cut);
  EXPECT_NE(cut.error().message.find("packed.gz"), std::string::npos);
}

TEST(DataFile, MissingFileAndDirectoryAreErrors) {
  const TemporaryDirectory directory;
  EXPECT_FALSE(read_data_file(directory.path() / "nothing"));
  EXPECT_FALSE(read_data_file(directory.path()));
}

TEST(DataFile, RowsNameFileLineAndKeyOfAMistake) {
  const TemporaryDirectory directory;
  directory.write("rows.jsonl", "{\"a\": \"x\", \"n\": 3}\n\n{\"a\": 7}\n");
  const auto rows = read_rows(directory.path() / "rows.jsonl", 0);
  ASSERT_TRUE(rows);
  ASSERT_EQ(rows->size(), 2U);
  EXPECT_EQ(*(*rows)[0].text("a"), "x");
  EXPECT_EQ(*(*rows)[0].index("n", 4), 3U);
  EXPECT_FALSE((*rows)[0].index("n", 3));
  const auto wrong = (*rows)[1].text("a");
  ASSERT_FALSE(wrong);
  for (const char* part : {"rows.jsonl", "line 3", "\"a\""}) {
    EXPECT_NE(wrong.error().message.find(part), std::string::npos) << wrong.error().message;
  }
}

TEST(DataFile, LinesThatAreNoObjectsAndEmptyFilesAreErrors) {
  const TemporaryDirectory directory;
  for (const char* text : {"[1]\n", "{\"a\": \n", "\n\n", ""}) {
    directory.write("rows.jsonl", text);
    EXPECT_FALSE(read_rows(directory.path() / "rows.jsonl", 0)) << text;
  }
}

TEST(DataFile, LimitStopsBeforeLaterRowsAreRead) {
  const TemporaryDirectory directory;
  directory.write("rows.jsonl", "{}\n{}\nnot JSON\n");
  EXPECT_EQ(read_rows(directory.path() / "rows.jsonl", 2)->size(), 2U);
}

TEST(DataFile, DocumentsAreRowsOrTheWholeFile) {
  const TemporaryDirectory directory;
  directory.write("some.jsonl", "{\"text\": \"a\"}\n{\"content\": \"b\"}\n");
  directory.write("one.txt", "{\"text\": \"a\"}\n");
  EXPECT_EQ(read_documents(directory.path() / "some.jsonl")->size(), 2U);
  EXPECT_EQ(read_documents(directory.path() / "one.txt")->front(), "{\"text\": \"a\"}\n");
}

TEST(Sha256, IsTheStandardsOwnExample) {
  const char* const expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
  EXPECT_EQ(sha256_of_text("abc"), expected);
  const TemporaryDirectory directory;
  directory.write("abc", "abc");
  EXPECT_EQ(*sha256_of_file(directory.path() / "abc"), expected);
}

}  // namespace
}  // namespace kvcast
