// Running the program on a bundle, a plain model and one with a tokenizer.
#pragma once

#include <string>
#include <vector>

#include "malformed/malformed.h"
#include "support/run_program.h"

namespace kvcast {

using Arguments = std::vector<std::string>;

inline Arguments kvcast(Arguments arguments) {
  arguments.insert(arguments.begin(), std::string(KVCAST_BINARY_DIR) + "/kvcast");
  return arguments;
}

class Cli : public MalformedTest {
 protected:
  void SetUp() override {
    bundle_.write(root_);
    model_.write(root_, "plain");
    model_.write(root_, "reader");
    root_.write("reader/tokenizer.model", *read_text_file(kTestTokenizer));
  }
  std::string path(const std::string& relative = {}) { return (root_.path() / relative).string(); }

  static void expect_failure(int status, const Arguments& arguments,
                             std::initializer_list<std::string_view> parts = {}) {
    Program program(kvcast(arguments));
    EXPECT_EQ(program.wait(), status) << testing::PrintToString(arguments);
    EXPECT_EQ(program.out(), "") << testing::PrintToString(arguments);
    const std::string error = program.err();
    EXPECT_THAT(error, testing::StartsWith("kvcast: "));
    ASSERT_THAT(error, testing::EndsWith("\n"));
    expect_one_line(std::string_view(error).substr(0, error.size() - 1));
    for (const std::string_view part : parts) {
      EXPECT_THAT(error, testing::HasSubstr(std::string(part)));
    }
  }
  static void expect_usage_error(const Arguments& arguments,
                                 std::initializer_list<std::string_view> parts = {}) {
    expect_failure(2, arguments, parts);
  }
  static void expect_run_error(const Arguments& arguments,
                               std::initializer_list<std::string_view> parts = {}) {
    expect_failure(1, arguments, parts);
  }
};

}  // namespace kvcast
