// What tasks make of their data, and runs that are cut short.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "eval/run.h"
#include "runtime/model_impl.h"
#include "server/tiny_bundle.h"
#include "support/run_program.h"

namespace kvcast {
namespace {

const TinyBundle& task_bundle() {
  static const TinyBundle bundle;
  return bundle;
}

std::shared_ptr<const Model> tiny_model() {
  static const auto model =
      *Model::load(task_bundle().path(), {.dtype = Dtype::kF32, .threads = 2});
  return model;
}

std::string text_of(const Tokens& tokens) { return *tiny_model()->detokenize(tokens); }

class Tasks : public testing::Test {
 protected:
  Result<std::unique_ptr<Task>> make(std::string_view name, const std::string& rows,
                                     TaskOptions options = {}) {
    directory_.write("data.jsonl", rows);
    options.data = directory_.path() / "data.jsonl";
    return make_task(name, options, *tiny_model());
  }
  std::string prompt(std::string_view name, const std::string& rows) {
    const auto task = make(name, rows);
    if (!task) return task.error().message;
    return text_of((*task)->prompt(0));
  }

  TemporaryDirectory directory_;
};

// The prompts of LM Evaluation Harness.
TEST_F(Tasks, MultipleChoicePromptsAreTheHarnesss) {
  EXPECT_EQ(prompt("arc_easy", R"({"query": "why?", "choices": ["a", "b"], "label": 1})"),
            "Question: why?\nAnswer:");
  EXPECT_EQ(prompt("arc_challenge",
                   R"({"question": "why?", "choices": {"text": ["a", "b"], "label": ["A", "B"]},)"
                   R"( "answerKey": "B"})"),
            "Question: why?\nAnswer:");
  EXPECT_EQ(prompt("boolq", R"({"passage": "so it is", "question": "is it", "label": 0})"),
            "so it is\nQuestion: is it?\nAnswer:");
  EXPECT_EQ(prompt("hellaswag", R"({"query": "a man is", "choices": ["x", "y"], "label": 0})"),
            "a man is");
  EXPECT_EQ(prompt("piqa", R"({"goal": "how", "sol1": "a", "sol2": "b", "label": 0})"),
            "Question: how\nAnswer:");
  EXPECT_EQ(prompt("sciq", R"({"question": "what", "support": " for ", "distractor1": "a",)"
                           R"( "distractor2": "b", "distractor3": "c", "correct_answer": "d"})"),
            "for \nQuestion: what\nAnswer:");
  EXPECT_EQ(prompt("winogrande",
                   R"({"sentence": "he _ is", "option1": "one", "option2": "two", "answer": "2"})"),
            "he one");
}

TEST_F(Tasks, WrongRowsAreNamed) {
  const std::pair<const char*, const char*> wrong[] = {
      {"arc_easy", R"({"query": "why?", "choices": ["a", "b"], "label": 2})"},
      {"arc_easy", R"({"query": "why?", "choices": [], "label": 0})"},
      {"arc_easy", R"({"query": "", "choices": ["", "b"], "label": 0})"},
      {"boolq", R"({"passage": "p", "label": 0})"},
      {"winogrande", R"({"sentence": "no blank", "option1": "a", "option2": "b", "label": 0})"},
      {"triviaqa", R"({"question": "q", "aliases": "a"})"},
  };
  for (const auto& [task, row] : wrong) {
    const auto made = make(task, row, {.shots = 0});
    ASSERT_FALSE(made) << task << row;
    EXPECT_NE(made.error().message.find("data.jsonl line 1"), std::string::npos)
        << made.error().message;
  }
}

TEST_F(Tasks, TriviaPromptHasSolvedExamplesFirst) {
  directory_.write("shots.jsonl",
                   "{\"question\": \"one\", \"answer\": \"A\", \"aliases\": [\"x\"]}\n"
                   "{\"question\": \"two\", \"answer\": {\"value\": \"B\"}}\n");
  TaskOptions options;
  options.shots = 2;
  options.shots_data = directory_.path() / "shots.jsonl";
  const auto task = make("triviaqa", R"({"question": "who", "aliases": ["me"]})", options);
  ASSERT_TRUE(task) << task.error().message;
  EXPECT_EQ(text_of((*task)->prompt(0)),
            "Question: one\nAnswer: A\n\nQuestion: two\nAnswer: B\n\nQuestion: who\nAnswer:");
  options.shots = 3;
  EXPECT_FALSE(make("triviaqa", R"({"question": "who", "aliases": ["me"]})", options));
  options.shots_data.clear();
  EXPECT_FALSE(make("triviaqa", R"({"question": "who", "aliases": ["me"]})", options));
}

TEST_F(Tasks, SyntheticPromptsHaveTheAskedLengthAndHoldTheAnswer) {
  for (const char* name : {"passkey", "recall"}) {
    TaskOptions options;
    options.length = 200;
    options.limit = 5;
    const auto task = make_task(name, options, *tiny_model());
    ASSERT_TRUE(task) << task.error().message;
    EXPECT_EQ((*task)->size(), 5U);
    for (size_t i = 0; i < 5; ++i) {
      EXPECT_LE(std::ssize((*task)->prompt(i)), 200);
      EXPECT_GE(std::ssize((*task)->prompt(i)), 120);
    }
    EXPECT_NE((*task)->prompt(0), (*task)->prompt(1));
    options.length = 100000;
    EXPECT_FALSE(make_task(name, options, *tiny_model()));
  }
}

TEST_F(Tasks, HumanEvalRunsNothingUnlessAllowed) {
  const auto task = make("humaneval", "{}");
  ASSERT_FALSE(task);
  EXPECT_NE(task.error().message.find("--allow-code-execution"), std::string::npos);
}

std::string lines_of_code(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) {
    text += "x_" + std::to_string(i) + " = the_word(" + std::to_string(i * i) + ")\n";
  }
  return text;
}

std::string choice_rows(int count) {
  std::string rows;
  for (int i = 0; i < count; ++i) {
    rows += "{\"query\": \"question number " + std::string(static_cast<size_t>(i % 7), 'x') +
            std::to_string(i) + "\", \"choices\": [\"yes it is\", \"no\", \"perhaps " +
            std::to_string(i) + "\"], \"label\": " + std::to_string(i % 3) + "}\n";
  }
  return rows;
}

bool equal(const std::vector<std::vector<ExampleScore>>& a,
           const std::vector<std::vector<ExampleScore>>& b) {
  if (a.size() != b.size()) return false;
  for (size_t s = 0; s < a.size(); ++s) {
    if (a[s].size() != b[s].size()) return false;
    for (size_t i = 0; i < a[s].size(); ++i) {
      if (a[s][i].metrics != b[s][i].metrics || a[s][i].output != b[s][i].output) return false;
    }
  }
  return true;
}

class Resuming : public Tasks {
 protected:
  Result<std::vector<std::vector<ExampleScore>>> run(PartialFile& partial, size_t stop_after,
                                                     int64_t batch_tokens = 60) {
    std::vector<EvalStrategy> strategies;
    for (const char* spec : {"exact", "kv-prediction", "wrong-cache"}) {
      strategies.push_back(*EvalStrategy::parse(spec));
    }
    Evaluator evaluator(tiny_model()->impl().models, *tiny_model()->impl().tokenizer, 1 << 20);
    std::stop_source stop;
    RunOptions options;
    options.batch_tokens = batch_tokens;
    options.stop = stop.get_token();
    options.on_progress = [&](size_t done, size_t) {
      if (done >= stop_after) stop.request_stop();
    };
    return run_task(*task_, evaluator, strategies, options, partial);
  }

  void SetUp() override { task_ = *make("arc_easy", choice_rows(23)); }
  std::filesystem::path path() const { return directory_.path() / "run.partial"; }

  std::unique_ptr<Task> task_;
};

TEST_F(Resuming, GivesWhatOneRunGivesHoweverExamplesAreBatched) {
  PartialFile none;
  const auto whole = run(none, SIZE_MAX);
  ASSERT_TRUE(whole);
  PartialFile unused;
  EXPECT_TRUE(equal(*run(unused, SIZE_MAX, 100000), *whole)) << "one batch";
  {
    PartialFile first = *PartialFile::open(path(), "this run");
    const auto stopped = run(first, 7);
    ASSERT_TRUE(stopped);
    EXPECT_TRUE(stopped->empty());
  }
  {  // killed in the middle of a line
    std::ofstream torn(path(), std::ios::app);
    torn << "{\"example\": 3, \"scores\": [{\"met";
  }
  PartialFile second = *PartialFile::open(path(), "this run");
  EXPECT_GE(second.records().size(), 7U);
  EXPECT_LT(second.records().size(), 23U);
  const auto resumed = run(second, SIZE_MAX);
  ASSERT_TRUE(resumed);
  EXPECT_TRUE(equal(*resumed, *whole));
  PartialFile third = *PartialFile::open(path(), "this run");
  EXPECT_EQ(third.records().size(), 23U) << "the torn line is gone and nothing ran twice";
  third.remove();
  EXPECT_FALSE(std::filesystem::exists(path()));
}

TEST_F(Resuming, RefusesAnotherRunsFile) {
  { const auto first = PartialFile::open(path(), "this run"); }
  const auto other = PartialFile::open(path(), "other run");
  ASSERT_FALSE(other);
  EXPECT_NE(other.error().message.find("run.partial"), std::string::npos);
}

class EvalCommand : public Tasks {
 protected:
  std::string with_data(const std::string& arguments) {
    return "eval '" + task_bundle().path().string() + "' --threads 2 " + arguments;
  }
  std::string file(const char* name) const {
    return "'" + (directory_.path() / name).string() + "'";
  }
};

TEST_F(EvalCommand, WritesTheResultsThatTheFormatPromises) {
  directory_.write("rows.jsonl", choice_rows(9));
  const auto result =
      run_kvcast(with_data("--task arc_easy --data " + file("rows.jsonl") +
                           " --prefill exact,kv-prediction,random:0.5,wrong-cache"
                           " --predicted-scoring --timing-repetitions 1 --json"
                           " --out " +
                           file("out.json") + " --outputs " + file("outputs.jsonl")));
  ASSERT_EQ(result.exit_code, 0) << result.error;
  EXPECT_EQ(*read_text_file(directory_.path() / "out.json"), result.out);
  EXPECT_FALSE(std::filesystem::exists(directory_.path() / "out.json.partial"));
  const auto json = nlohmann::json::parse(result.out);
  EXPECT_EQ(json["kind"], "kvcast-eval");
  EXPECT_EQ(json["model"]["base"]["sha256"].get<std::string>().size(), 64U);
  ASSERT_EQ(json["results"].size(), 5U);
  const auto& predicted = json["results"][1];
  EXPECT_EQ(predicted["prefill"], "kv-prediction");
  EXPECT_EQ(predicted["scoring"], "mixed");
  EXPECT_EQ(predicted["n"], 9);
  for (const char* metric : {"acc", "acc_norm"}) {
    EXPECT_LE(predicted[metric]["low"], predicted[metric]["value"]);
    EXPECT_LE(predicted[metric]["value"], predicted[metric]["high"]);
  }
  EXPECT_GT(predicted["flops_reduction"]["exact"], 1.0);
  EXPECT_GT(predicted["ttft_ms"]["median"], 0.0);
  EXPECT_GT(predicted["total_ms"]["16"], predicted["total_ms"]["1"]);
  EXPECT_TRUE(predicted.contains("auxiliary_break_even_tokens"));
  EXPECT_GT(predicted["peak_rss_bytes"], 1000000);
  EXPECT_EQ(json["results"][4]["scoring"], "predicted");
  EXPECT_EQ(json["results"][3]["prefill"], "wrong-cache");
  std::istringstream outputs(*read_text_file(directory_.path() / "outputs.jsonl"));
  int lines = 0;
  for (std::string line; std::getline(outputs, line); ++lines) {
    EXPECT_EQ(nlohmann::json::parse(line)["log_probabilities"].size(), 3U);
  }
  EXPECT_EQ(lines, 45);
}

// With the shipped bundle: a tiny model's logits are scored too fast for threads to meet.
TEST_F(EvalCommand, ThreadsDoNotChangeAScore) {
  directory_.write("text.txt", lines_of_code(4000));
  nlohmann::json first;
  for (const char* threads : {"1", "2", "2", "2", "2"}) {
    const auto result =
        run_kvcast("eval '" + std::string(KVCAST_SOURCE_DIR) +
                   "/models/kvcast-65m' --timing-repetitions 0 --json --task nll --prefix 16 "
                   "--suffix 112 --limit 16 --prefill exact --threads " +
                   threads + " --data " + file("text.txt"));
    ASSERT_EQ(result.exit_code, 0) << result.error;
    const auto scored = nlohmann::json::parse(result.out)["results"][0];
    const nlohmann::json scores = {scored["nll"], scored["kl"], scored["top1"], scored["first"]};
    if (first.is_null()) first = scores;
    EXPECT_EQ(scores, first) << threads << " threads";
  }
}

TEST_F(EvalCommand, EveryTaskRuns) {
  directory_.write("trivia.jsonl", R"({"question": "who", "aliases": ["me", "Me.", "you"]})");
  directory_.write("text.txt", lines_of_code(400));
  directory_.write("chats.jsonl", R"({"prompt": "a word", "answer": "another word"})");
  for (const std::string& task :
       {"nll --prefix 40 --suffix 16 --limit 5 --data " + file("text.txt"),
        "chats --data " + file("chats.jsonl"),
        "agreement --prefix 40 --max-tokens 8 --limit 5 --data " + file("text.txt"),
        "next_line --prefix 40 --max-tokens 8 --limit 5 --data " + file("text.txt"),
        std::string("passkey --lengths 180,220 --limit 4"),
        std::string("recall --lengths 64 --limit 4"),
        "triviaqa --shots 0 --data " + file("trivia.jsonl")}) {
    const auto result = run_kvcast(with_data("--timing-repetitions 0 --json --task " + task));
    ASSERT_EQ(result.exit_code, 0) << task << result.error;
    const auto json = nlohmann::json::parse(result.out);
    for (const auto& one : json["results"]) {
      EXPECT_GE(one["flops_reduction"]["exact"], 1.0) << task;  // counted, not timed
      EXPECT_FALSE(one.contains("ttft_ms"));
      if (one["prefill"] != "exact") continue;
      if (one["task"] == "nll") {
        EXPECT_NEAR(one["kl"]["value"].get<double>(), 0, 1e-9);
        EXPECT_EQ(one["top1"]["value"], 1.0);
        EXPECT_EQ(one["first"]["value"], 1.0);
      } else if (one["task"] == "agreement") {
        EXPECT_EQ(one["agreement"]["value"], 1.0);
      }
    }
  }
}

TEST_F(EvalCommand, MistakesAreNamed) {
  directory_.write("rows.jsonl", choice_rows(3));
  EXPECT_EQ(run_kvcast("eval --task nothing --data x").exit_code, 2);
  EXPECT_EQ(run_kvcast("eval --task nll --data x --prefill random:2").exit_code, 2);
  const auto without = run_kvcast(with_data("--task arc_easy"));
  EXPECT_EQ(without.exit_code, 1);
  EXPECT_NE(without.error.find("--data"), std::string::npos);
  const auto scoring = run_kvcast(with_data(
      "--task nll --prefix 8 --suffix 8 --predicted-scoring --data " + file("rows.jsonl")));
  EXPECT_EQ(scoring.exit_code, 1);
  // A model without a predictor.
  const auto plain =
      run_kvcast("eval '" + (task_bundle().path() / "base").string() + "' --tokenizer '" +
                 std::string(KVCAST_SOURCE_DIR) + "/tests/data/tokenizer.model'" +
                 " --task arc_easy --predicted-scoring --data " + file("rows.jsonl"));
  EXPECT_EQ(plain.exit_code, 1) << plain.error;
  EXPECT_NE(plain.error.find("plain model"), std::string::npos) << plain.error;
  const auto missing = run_kvcast(with_data("--task arc_easy --data " + file("no-such-file")));
  EXPECT_EQ(missing.exit_code, 1);
  EXPECT_NE(missing.error.find("no-such-file"), std::string::npos);
}

}  // namespace
}  // namespace kvcast
