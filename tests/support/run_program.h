// Runs the kvcast program that was built with the tests.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>
#include <string>

#include "base/mapped_file.h"
#include "support/temporary_directory.h"

namespace kvcast {

struct ProgramResult {
  int exit_code = -1;  ///< -1: it did not run or was ended by a signal
  std::string out, error;
};

/// `arguments` as typed in a shell.
inline ProgramResult run_kvcast(const std::string& arguments) {
  const TemporaryDirectory directory;
  const auto out = directory.path() / "out";
  const auto error = directory.path() / "error";
  const std::string command = std::string("'") + KVCAST_BINARY_DIR + "/kvcast' " + arguments +
                              " >'" + out.string() + "' 2>'" + error.string() + "' </dev/null";
  const int status = std::system(command.c_str());
  ProgramResult result;
  if (WIFEXITED(status)) result.exit_code = WEXITSTATUS(status);
  result.out = read_text_file(out).value_or("");
  result.error = read_text_file(error).value_or("");
  return result;
}

}  // namespace kvcast
