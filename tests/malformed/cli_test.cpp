// The program's side of the contract: exit status, one line on stderr, nothing half-written.
#include "malformed/cli.h"

#include <chrono>

#include "base/mapped_file.h"

namespace kvcast {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST_F(Cli, ConvertWritesADirectoryOrNothing) {
  const std::string out = path("converted");
  for (const auto& [option, value] :
       {std::pair{"--dtype", "f64"}, {"--shard-bytes", "-1"}, {"--shard-bytes", "45MB"}}) {
    expect_usage_error({"convert", path(), out, option, value}, {option});
  }
  expect_run_error({"convert", path("nothing"), out}, {"nothing"});
  expect_run_error({"convert", path(), path("plain")}, {"plain", "exists already"});
  EXPECT_FALSE(std::filesystem::exists(out));
  Program program(kvcast({"convert", path(), out, "--dtype", "int8"}));
  EXPECT_EQ(program.wait(), 0) << program.err();
  EXPECT_THAT(program.out(), testing::HasSubstr(out));
  Program again(kvcast({"inspect", out, "--tokens", "5 17 3", "--out", path("out.safetensors")}));
  EXPECT_EQ(again.wait(), 0) << again.err();
}

TEST_F(Cli, RequestsThatTheModelCannotServeFail) {
  const auto inspect = [&](const Arguments& more, std::initializer_list<std::string_view> parts) {
    Arguments arguments = {"inspect", path(), "--out", path("out")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    expect_run_error(arguments, parts);
    EXPECT_FALSE(std::filesystem::exists(path("out")));
  };
  std::string long_prompt;
  for (int i = 0; i < 33; ++i) long_prompt += "7 ";
  inspect({"--tokens", ""}, {"empty"});
  inspect({"--tokens", "5 400"}, {"token id 400"});
  inspect({"--tokens", "5 -1"}, {"token id -1"});
  inspect({"--tokens", long_prompt}, {"too long", "33", "32"});
  inspect({"--tokens", "1 2", "--steps", "31"}, {"--steps", "32"});
  inspect({"--tokens", "1 2", "--steps", "9223372036854775807"}, {"--steps"});
  expect_run_error({"run", path("plain"), "-p", "text"}, {"no tokenizer.json or tokenizer.model"});
  expect_run_error({"run", path("reader"), "-p", "text", "--prefill", "auxiliary"},
                   {"needs a KV-prediction bundle"});
  expect_run_error({"run", path("reader"), "-p", std::string(100'000, 'x')}, {"too long"});
  expect_run_error({"run", path("reader"), "-f", path("nowhere")}, {"nowhere", "cannot open"});
  expect_run_error({"run", path("reader"), "-f", path()}, {"cannot read", "directory"});
  expect_run_error({"run", path("reader"), "-p", "a", "--suffix", "b"},
                   {"no tokens for filling in"});
  expect_run_error({"run", path("reader"), "-p", "a", "--suffix", "@" + path("nowhere")},
                   {"nowhere", "cannot open"});
}

TEST_F(Cli, InspectKeepsToTheContextOfTheModelThatAnswers) {
  bundle_.auxiliary.config["max_context_length"] = 8;
  bundle_.write(root_);
  const Arguments command = {"inspect",   path(),  "--tokens",  "1 2 3",  "--prefill",
                             "auxiliary", "--out", path("out"), "--steps"};
  Arguments fits = command, exceeds = command;
  fits.emplace_back("5");
  exceeds.emplace_back("6");
  EXPECT_EQ(Program(kvcast(fits)).wait(), 0);
  expect_run_error(exceeds, {"--steps", "8"});
}

TEST_F(Cli, ModelsThatDoNotLoadFailInEveryCommand) {
  for (const Arguments& command :
       {Arguments{"run", "-p", "x"}, Arguments{"info"}, Arguments{"bench"},
        Arguments{"inspect", "--tokens", "1", "--out", path("out")}, Arguments{"flops"}}) {
    Arguments arguments = command;
    arguments.insert(arguments.begin() + 1, path("nowhere"));
    expect_run_error(arguments, {"nowhere", "no such file", "kvcast list"});
    arguments[1] = path("empty");
    std::filesystem::create_directories(path("empty"));
    expect_run_error(arguments, {"empty", "neither config.json nor kvcast.json"});
    arguments[1] = path("damaged");
    std::filesystem::remove_all(path("damaged"));
    BundleFiles damaged;
    damaged.manifest["layer_map"] = {0, 7};
    root_.write("damaged/kvcast.json", damaged.manifest.dump());
    damaged.base.write(root_, "damaged/base");
    damaged.auxiliary.write(root_, "damaged/auxiliary");
    expect_run_error(arguments, {"kvcast.json", "layer_map"});
  }
}

TEST_F(Cli, BenchRefusesATokenizerOfAnotherVocabulary) {
  ModelConfig shape = tiny_base_shape();
  shape.vocab_size = 300;
  ModelFiles::of(shape, 0).write(root_, "small");
  expect_run_error({"bench", path("small"), "-p", "8", "--tokenizer", kTestTokenizer.string()},
                   {"tokenizer.model", "400 tokens", "vocab_size is 300"});
  expect_run_error({"bench", path("small"), "-p", "8", "--tokenizer", path("nowhere")},
                   {"nowhere", "cannot open"});
}

TEST_F(Cli, OutputFilesThatCannotBeWrittenLeaveNothing) {
  std::filesystem::create_directory(path("directory"));
  for (const std::string& out : {path("nowhere/out"), path("directory"), path("kvcast.json/x"),
                                 std::string("/proc/kvcast-out"), std::string("/dev/full")}) {
    expect_run_error({"inspect", path(), "--tokens", "1", "--out", out}, {out});
  }
  EXPECT_TRUE(std::filesystem::is_empty(path("directory")));
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/full"));
  for (const auto& entry : std::filesystem::directory_iterator(root_.path())) {
    EXPECT_THAT(entry.path().string(), testing::Not(testing::HasSubstr(".tmp.")));
  }
}

TEST_F(Cli, AFullDiskUnderStandardOutputFails) {
  for (const Arguments& arguments :
       {Arguments{"--version"}, Arguments{"--help"}, Arguments{"info", path()},
        Arguments{"info", path(), "--json"}, Arguments{"flops"},
        Arguments{"run", path("reader"), "-p", "The", "-n", "20", "--json"},
        Arguments{"run", path("reader"), "-p", "The", "-n", "20"},
        Arguments{"bench", path(), "-p", "3", "-r", "1", "--decode", "0"}}) {
    Program program(kvcast(arguments), {.stdout_path = "/dev/full"});
    EXPECT_EQ(program.wait(), 1) << testing::PrintToString(arguments);
    const std::string error = program.err();
    EXPECT_THAT(error, testing::StartsWith("kvcast: cannot write"));
    expect_one_line(std::string_view(error).substr(0, error.size() - 1));
  }
}

TEST_F(Cli, StandardErrorThatIsFullOrClosedStopsNothing) {
  const std::string program = std::string(KVCAST_BINARY_DIR) + "/kvcast ";
  for (const std::string where : {" 2> /dev/full", " 2>&-"}) {
    Program run({"/bin/bash", "-c", program + "run " + path("reader") + " -p The -n 3" + where});
    EXPECT_EQ(run.wait(), 0) << where;
    EXPECT_FALSE(run.out().empty()) << where;
    Program wrong({"/bin/bash", "-c", program + "run " + path("nowhere") + " -p The" + where});
    EXPECT_EQ(wrong.wait(), 1) << where;
  }
  // No file that is opened takes the place of a stream that was closed, and what is printed.
  const auto inspect = [&](const std::string& out, const std::string& streams) {
    Program run({"/bin/bash", "-c",
                 program + "inspect " + path() + " --tokens '1 2' --out " + path(out) + streams});
    run.wait();
    return *read_text_file(path(out));
  };
  EXPECT_EQ(inspect("apart", " <&- >&- 2>&-"), inspect("plain.safetensors", ""));
}

TEST_F(Cli, WeightsLargerThanTheMemoryFail) {
#ifdef KVCAST_SANITIZED
  GTEST_SKIP() << "sanitizers need more address space than is left here";
#endif
  Program program(kvcast({"bench", "--arch", "openelm-270m", "--threads", "1"}),
                  {.memory = rlim_t{320} << 20});
  EXPECT_EQ(program.wait(), 1);
  EXPECT_EQ(program.err(), "kvcast: not enough memory\n");
}

/// A SentencePiece model (a protocol buffer) that knows the letter z and nothing else.
std::string tokenizer_of_one_letter() {
  std::string file;
  const auto piece = [&](const std::string& text, char type) {  // 1: normal, 2: unknown, 3: control
    const std::string entry = std::string("\x0a") + static_cast<char>(text.size()) + text +
                              std::string("\x15\0\0\0\0\x18", 6) + type;
    file += std::string("\x0a") + static_cast<char>(entry.size()) + entry;
  };
  piece("<unk>", 2);
  piece("<s>", 3);
  piece("</s>", 3);
  piece("z", 1);
  return file + std::string("\x12\x02\x18\x02");  // model type: BPE
}

TEST_F(Cli, BenchEndsWithATokenizerThatDoesNotKnowItsLetters) {
  root_.write("one-letter.model", tokenizer_of_one_letter());
  Program program(kvcast({"bench", path("plain"), "-p", "8", "-r", "1", "--decode", "0",
                          "--tokenizer", path("one-letter.model")}));
  EXPECT_EQ(program.wait(seconds(60)), 0) << program.err();
}

class Interrupted : public Cli {
 protected:
  void SetUp() override {
    Cli::SetUp();
    model_.config["max_context_length"] = 1 << 16;  // answers and prompts that take a while
    model_.config["rope_max_length"] = 1 << 16;
    model_.write(root_, "reader");
  }
  /// That SIGINT, sent now, ends the program quickly and without a word on stderr.
  static void expect_quick_end(Program& program, seconds limit) {
    program.send(SIGINT);
    EXPECT_EQ(program.wait(limit), 130);
    EXPECT_EQ(program.err(), "");
  }
};

TEST_F(Interrupted, RunStopsBetweenTokens) {
  Program program(
      kvcast({"run", path("reader"), "-p", "The", "-n", "60000", "--ignore-end-of-text"}));
  ASSERT_TRUE(program.has_written()) << program.err();
  expect_quick_end(program, seconds(10));
  EXPECT_THAT(program.out(), testing::EndsWith("\n"));
}

TEST_F(Interrupted, RunStopsDuringALongPrompt) {
  // Many layers, each quick enough even under sanitizers: a prompt stops between layers.
  ModelConfig shape = tiny_base_shape();
  shape.max_context_tokens = 1 << 16;
  shape.layers.assign(200, {1, 1, 8});
  ModelFiles::of(shape, 0).write(root_, "reader");
  root_.write("long", std::string(12'000, 'x'));
  Program program(kvcast({"run", path("reader"), "-f", path("long"), "-n", "1", "--json"}));
  ASSERT_TRUE(program.has_blocked(SIGINT));
  std::this_thread::sleep_for(milliseconds(300));
  program.send(SIGINT);
  EXPECT_EQ(program.wait(seconds(30)), 130);
  EXPECT_EQ(program.out(), "");
}

TEST_F(Interrupted, BenchStopsBetweenMeasurements) {
  Program program(kvcast({"bench", path("reader"), "-p", "300", "-r", "1000", "--decode", "200"}));
  ASSERT_TRUE(program.has_blocked(SIGINT));
  std::this_thread::sleep_for(milliseconds(1500));
  expect_quick_end(program, seconds(20));
}

TEST_F(Interrupted, BenchStopsWhileItMakesWeights) {
  Program program(kvcast({"bench", "--arch", "openelm-1.1b", "-p", "8"}));
  ASSERT_TRUE(program.has_blocked(SIGINT));
  std::this_thread::sleep_for(milliseconds(300));
  expect_quick_end(program, seconds(2));
  EXPECT_EQ(program.out(), "");
}

}  // namespace
}  // namespace kvcast
