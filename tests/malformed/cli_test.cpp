// The program's side of the contract: exit status, one line on stderr, nothing half-written.
#include <chrono>
#include <string>
#include <vector>

#include "io/json.h"
#include "malformed/malformed.h"
#include "support/run_program.h"

namespace kvcast {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Arguments = std::vector<std::string>;

Arguments kvcast(Arguments arguments) {
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

TEST_F(Cli, GoodCommandsSucceed) {  // else every test below means nothing
  for (const Arguments& arguments :
       {Arguments{"--version"}, Arguments{"--help"}, Arguments{"run", "--help"},
        Arguments{"info", path()}, Arguments{"flops"},
        Arguments{"run", path("reader"), "-p", "The cache", "-n", "3"},
        Arguments{"inspect", path(), "--tokens", "5 17 3", "--out", path("out.safetensors")}}) {
    Program program(kvcast(arguments));
    EXPECT_EQ(program.wait(), 0) << testing::PrintToString(arguments) << program.err();
    const bool has_statistics = arguments[0] == "run" && arguments[1] != "--help";
    EXPECT_EQ(program.err().empty(), !has_statistics) << testing::PrintToString(arguments);
  }
  EXPECT_TRUE(std::filesystem::is_regular_file(path("out.safetensors")));
}

TEST_F(Cli, CommandsAndOptionsThatDoNotExistAreBadUsage) {
  expect_usage_error({});
  expect_usage_error({"walk"}, {"\"walk\" is no command", "kvcast help"});
  expect_usage_error({"rnu"}, {"did you mean run?"});
  expect_usage_error({"serv", "--port", "80"}, {"did you mean serve?"});
  expect_usage_error({"serve", "--prot", "80"}, {"did you mean --port?", "kvcast serve --help"});
  expect_usage_error({"help", "rnu"}, {"rnu"});
  for (const char* port : {"99999", "-1", "x"}) {
    expect_usage_error({"serve", "--port", port}, {"--port", "65535", "kvcast serve --help"});
  }
  expect_usage_error({"--nonsense"});
  expect_usage_error({"run", path("plain")}, {"-p"});
  expect_usage_error({"run", path("plain"), "-p", "x", "--nonsense"}, {"--nonsense"});
  expect_usage_error({"run", path("plain"), "-p", "x", "-f", "y"});
  expect_usage_error({"run", path("plain"), "-p", "x", "more\nlines"});
  expect_usage_error({"inspect", path()}, {"--tokens"});
  expect_usage_error({"inspect", path(), "--tokens", "5"}, {"--out"});
  expect_usage_error({"bench", "--aux", "openelm-270m"}, {"--arch"});
  expect_usage_error({"convert"}, {"MODEL"});
  expect_usage_error({"convert", path()}, {"OUT"});
}

TEST_F(Cli, ValuesOutOfRangeAreBadUsage) {
  const auto run_with = [&](const std::string& option, const std::string& value) {
    expect_usage_error({"run", path("reader"), "-p", "x", option, value});
  };
  for (const char* value : {"0", "-1", "x", "1.5", "99999999999999999999"}) run_with("-n", value);
  for (const char* value : {"-1", "1025", "x"}) run_with("--threads", value);
  for (const char* value : {"f64", "", "BF16"}) run_with("--dtype", value);
  for (const char* value : {"-1", "x"}) run_with("--top-k", value);
  for (const char* value : {"-0.5", "nan", "inf", "x"}) run_with("--temperature", value);
  for (const char* value : {"0", "1.5", "nan", "x"}) run_with("--top-p", value);
  for (const char* value : {"-0.1", "1.5", "nan", "x"}) run_with("--min-p", value);
  for (const char* value : {"0", "-1", "nan", "x"}) run_with("--repetition-penalty", value);
  for (const char* value : {"-1", "x", "18446744073709551616"}) run_with("--seed", value);
  for (const char* option : {"--prefill", "--compare"}) {
    for (const char* value : {"guess", "", "kv-prediction:tail=0", "kv-prediction:tail=x",
                              "kv-prediction:tail=-1", "a\nb"}) {
      run_with(option, value);
    }
  }
}

TEST_F(Cli, ChatAndServeFindWrongOptionsBeforeTheyLoadAnything) {
  const auto wrong = [&](const std::string& command, const std::string& option,
                         const std::string& value) {
    expect_usage_error({command, path("nowhere"), option, value}, {option});
  };
  for (const char* value : {"-1", "x"}) wrong("chat", "--seed", value);
  wrong("chat", "--max-tokens", "0");
  wrong("chat", "--prefill", "guess");
  wrong("serve", "--prefill", "guess");
  wrong("serve", "--max-batch", "0");
  expect_usage_error({"chat", path("nowhere"), "--top-p", "2"}, {"top_p"});
  // The strategy does not fit the model: that is known before its weights are read.
  root_.write("plain/model.safetensors", "broken");
  for (const char* command : {"run", "chat", "serve"}) {
    Arguments arguments = {command, path("plain"), "--prefill", "auxiliary"};
    if (arguments[0] == "run") arguments.insert(arguments.end(), {"-p", "x"});
    expect_run_error(arguments, {"needs a KV-prediction bundle"});
  }
}

TEST_F(Cli, ATextInPlaceOfTheModelIsThePrompt) {
  Program program(kvcast({"run", "Once upon a time", "-n", "2", "--json"}));
  EXPECT_EQ(program.wait(), 0) << program.err();
  EXPECT_THAT(program.out(), testing::HasSubstr("\"prompt\": \"Once upon a time\""));
  Program both(kvcast({"run", path("reader"), "The cache", "-n", "2", "--json"}));
  EXPECT_EQ(both.wait(), 0) << both.err();
  expect_usage_error({"run", "Once"}, {"\"Once\" is no model", "-p \"Once\""});
}

TEST_F(Cli, TheAnswerAloneIsOnStandardOutput) {
  const Arguments command = {"run", path("reader"), "-p", "The cache", "-n", "5"};
  Program program(kvcast(command));
  ASSERT_EQ(program.wait(), 0);
  EXPECT_THAT(program.err(), testing::HasSubstr("time to first token"));
  Arguments json = command;
  json.emplace_back("--json");
  Program again(kvcast(json));
  ASSERT_EQ(again.wait(), 0);
  const Json answers = *parse_json(again.out(), "stdout");
  EXPECT_EQ(program.out(), answers["answers"][0]["text"].get<std::string>() + "\n");
}

TEST_F(Cli, ComparingAStrategyWithItselfClaimsNothing) {
  Program program(kvcast({"run", path("reader"), "-p", "The cache", "-n", "2", "--prefill", "exact",
                          "--compare", "exact", "--json"}));
  ASSERT_EQ(program.wait(), 0) << program.err();
  const Json json = *parse_json(program.out(), "stdout");
  EXPECT_EQ(json["comparison"]["rounds"], 7);
  const Json& ratio = json["comparison"]["ttft_ratio"];
  EXPECT_LE(ratio["low"].get<double>(), ratio["median"].get<double>());
  EXPECT_GE(ratio["high"].get<double>(), ratio["median"].get<double>());
}

TEST_F(Cli, PromptsComeFromPipesAndLoseTheirByteOrderMark) {
  root_.write("marked", "\xEF\xBB\xBFThe cache");
  const std::string program = std::string(KVCAST_BINARY_DIR) + "/kvcast run " + path("reader");
  for (const std::string& from : {" -f " + path("marked"), " -f <(cat " + path("marked") + ")",
                                  " -f - < " + path("marked"), std::string(" -p 'The cache'")}) {
    Program run({"/bin/bash", "-c", program + " -n 2 --json" + from});
    EXPECT_EQ(run.wait(), 0) << from << run.err();
    const Json json = *parse_json(run.out(), "stdout");
    EXPECT_EQ(json["prompt"], "The cache") << from;
  }
}

TEST_F(Cli, TextThatIsNotUtf8IsAnErrorWithItsOffset) {
  root_.write("latin1", "caf\xE9 au lait");
  expect_run_error({"run", path("reader"), "-f", path("latin1")}, {"latin1", "offset 3", "UTF-8"});
  expect_run_error({"run", path("reader"), "-p", "caf\xE9"}, {"offset 3"});
}

TEST_F(Cli, ModelsAreCalledByTheirNames) {
  setenv("KVCAST_MODELS", root_.path().c_str(), 1);
  Program list(kvcast({"list"}));
  EXPECT_EQ(list.wait(), 0);
  EXPECT_THAT(list.out(), testing::ContainsRegex("reader +" + path("reader")));
  Program run(kvcast({"run", "reader", "-p", "The cache", "-n", "2"}));
  EXPECT_EQ(run.wait(), 0) << run.err();
  unsetenv("KVCAST_MODELS");
  Program unknown(kvcast({"run", "reader", "-p", "x"}));
  EXPECT_EQ(unknown.wait(), 1);
  const auto printed = [](const Arguments& arguments) {
    Program program(kvcast(arguments));
    EXPECT_EQ(program.wait(), 0);
    return program.out();
  };
  EXPECT_EQ(printed({"help"}), printed({"--help"}));
  EXPECT_EQ(printed({"help", "run"}), printed({"run", "--help"}));
  EXPECT_EQ(printed({"version"}), printed({"--version"}));
}

TEST_F(Cli, BenchValuesOutOfRangeAreBadUsage) {
  const auto bench_with = [&](const std::string& option, const std::string& value) {
    expect_usage_error({"bench", path(), option, value});
  };
  for (const char* option : {"-p", "-b", "-r"}) {
    for (const char* value : {"0", "-1", "x", "1,,x"}) bench_with(option, value);
  }
  for (const char* value : {"guess", "exact,guess", "kv-prediction:tail=0"}) {
    bench_with("--prefill", value);
  }
  bench_with("--dtype", "f64");
  bench_with("--format", "xml");
  bench_with("--threads", "-1");
  expect_run_error({"bench", "--arch", "gpt-5"}, {"gpt-5", "openelm-1.1b"});
  for (const char* tokens : {"33", "9223372036854775807"}) {
    expect_run_error({"bench", path(), "-p", tokens}, {tokens, "context"});
  }
  expect_run_error({"bench", path("plain"), "-p", "3", "--decode", "0", "--prefill", "auxiliary"},
                   {"needs a KV-prediction bundle"});
}

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

TEST_F(Cli, TokenListsThatAreNoneAreBadUsage) {
  for (const char* tokens : {"x", "1 x", "1.5", "1;2", "99999999999", "0x10", "1 2\n3 y", "--"}) {
    expect_usage_error({"inspect", path(), "--tokens", tokens, "--out", path("out")}, {"--tokens"});
  }
  expect_usage_error({"inspect", path(), "--tokens", "5", "--steps", "-1", "--out", path("out")},
                     {"--steps"});
  EXPECT_FALSE(std::filesystem::exists(path("out")));
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
    expect_run_error(arguments, {"nowhere"});
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
