// A file that somebody cuts while it is mapped.
#include "base/shrunken_files.h"

#include <gmock/gmock.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "base/mapped_file.h"
#include "support/temporary_directory.h"

namespace kvcast {
namespace {

/// The sum of a mapped file's bytes; `cut` runs between mapping and reading.
template <typename Cut>
int sum_of(const std::filesystem::path& path, Cut cut) {
  const auto file = MappedFile::open(path);
  if (!file) return -1;
  cut();
  int sum = 0;
  for (const std::byte byte : (*file)->bytes()) sum += static_cast<int>(byte);
  return sum;
}

TEST(ShrunkenFiles, EndTheProgramWithALineThatNamesThem) {
  const TemporaryDirectory directory;
  const auto cut_one = directory.path() / "cut\none", whole = directory.path() / "whole";
  ASSERT_TRUE(write_file_atomically(whole, std::string(20'000, '\1')));
  ASSERT_TRUE(write_file_atomically(cut_one, std::string(20'000, '\1')));
  EXPECT_EXIT(
      {
        report_shrunken_files("program");
        const auto other = MappedFile::open(whole);
        const auto cut = [&] { std::filesystem::resize_file(cut_one, 100); };
        std::exit(sum_of(cut_one, cut) == 0 ? 2 : 3);
      },
      testing::ExitedWithCode(1), "^program: [^\n]*/cut\\?one: became shorter while it was in use");
}

TEST(ShrunkenFiles, WhatIsNoLongerMappedIsForgotten) {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "file";
  ASSERT_TRUE(write_file_atomically(path, std::string(20'000, '\1')));
  for (int i = 0; i < 1'000; ++i) ASSERT_EQ(sum_of(path, [] {}), 20'000);
  EXPECT_EXIT(
      {
        report_shrunken_files("program");
        const auto cut = [&] { std::filesystem::resize_file(path, 0); };
        std::exit(sum_of(path, cut) == 0 ? 2 : 3);
      },
      testing::ExitedWithCode(1), "file: became shorter");
}

}  // namespace
}  // namespace kvcast
