// A model's file that is cut while a program answers from it.
#include <filesystem>
#include <string>

#include "malformed/malformed.h"
#include "support/run_program.h"
#include "support/terminal.h"

namespace kvcast {
namespace {

class ShrunkenModel : public MalformedTest {};

TEST_F(ShrunkenModel, EndsAChatWithOneLine) {
  const std::string program = std::string(KVCAST_BINARY_DIR) + "/kvcast";
  model_.write(root_, "reader");
  root_.write("reader/tokenizer.model", *read_text_file(kTestTokenizer));
  const std::string packed = (root_.path() / "packed").string();
  Program convert(
      {program, "convert", (root_.path() / "reader").string(), packed, "--dtype", "bf16"});
  ASSERT_EQ(convert.wait(), 0) << convert.err();
  Terminal terminal({program, "chat", packed, "-n", "2"});
  ASSERT_TRUE(terminal.shows("> "));
  for (const auto& entry : std::filesystem::directory_iterator(packed)) {
    if (entry.path().extension() == ".safetensors") std::filesystem::resize_file(entry.path(), 0);
  }
  terminal.type("The cache\r");
  EXPECT_THAT(terminal.all_shown(),
              testing::HasSubstr(".safetensors: became shorter while it was in use"));
}

}  // namespace
}  // namespace kvcast
