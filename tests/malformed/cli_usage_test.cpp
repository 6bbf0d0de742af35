// What is written on the command line: commands, options, prompts, names of models.
#include "io/json.h"
#include "malformed/cli.h"

namespace kvcast {
namespace {

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
  expect_usage_error({"help", "rnu"}, {"\"rnu\" is no command; did you mean run?"});
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
  // A bundle that cannot be used is listed, and why is said beside.
  root_.write("broken/kvcast.json", R"({"format": 1})");
  Program again(kvcast({"list"}));
  EXPECT_EQ(again.wait(), 0);
  EXPECT_THAT(again.out(), testing::HasSubstr("broken"));
  EXPECT_THAT(again.err(), testing::HasSubstr(path("broken/kvcast.json")));
  Program run(kvcast({"run", "reader", "-p", "The cache", "-n", "2"}));
  EXPECT_EQ(run.wait(), 0) << run.err();
  unsetenv("KVCAST_MODELS");
  expect_run_error({"run", "reader", "-p", "x"}, {"no model of that name"});
  expect_run_error({"chat", "kvcast-65n"}, {"did you mean kvcast-65m?"});
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

TEST_F(Cli, TokenListsThatAreNoneAreBadUsage) {
  for (const char* tokens : {"x", "1 x", "1.5", "1;2", "99999999999", "0x10", "1 2\n3 y", "--"}) {
    expect_usage_error({"inspect", path(), "--tokens", tokens, "--out", path("out")}, {"--tokens"});
  }
  expect_usage_error({"inspect", path(), "--tokens", "5", "--steps", "-1", "--out", path("out")},
                     {"--steps"});
  EXPECT_FALSE(std::filesystem::exists(path("out")));
}

}  // namespace
}  // namespace kvcast
