// Runs that are killed, that find no room to write, or whose loss goes wrong.
#include <gtest/gtest.h>

#include "train/data/error.h"
#include "train/loss_monitor.h"
#include "train/model_files.h"
#include "trained_program.h"

namespace kvcast::train {
namespace {

class Crash : public TrainedProgram {
 protected:
  /// Waits until the log has an entry at or after `step`. False: the run ended before.
  [[nodiscard]] bool reaches(Program& program, const std::string& name, int64_t step) const {
    while (true) {
      const auto seen = losses(name);
      if (!seen.empty() && seen.rbegin()->first >= step) return true;
      if (program.wait(std::chrono::milliseconds(1)) >= 0) return false;
    }
  }
};

TEST_F(Crash, ARunKilledAgainAndAgainContinuesToTheSameCurveAndWeights) {
  Program whole(command("whole"));
  ASSERT_EQ(whole.wait(), 0) << whole.err();

  // A few lines before the end, so that it cannot end before it is killed.
  for (const int64_t step : {2, 31, 60, 81}) {
    Program killed(command("cut", {"--resume"}));
    ASSERT_TRUE(reaches(killed, "cut", step)) << killed.err();
    killed.send(SIGKILL);
    ASSERT_EQ(killed.wait(), 1000 + SIGKILL);
    if (std::filesystem::exists(path("cut.checkpoint"))) {
      EXPECT_EQ(load_model(path("cut.checkpoint")).config.n_layers(), 2);
    }
  }
  Program last(command("cut", {"--resume"}));
  ASSERT_EQ(last.wait(), 0) << last.err();

  EXPECT_EQ(losses("whole").size(), 60U);
  EXPECT_EQ(losses("cut"), losses("whole"));  // to the bit
  EXPECT_EQ(read_file(path("cut/model.safetensors")), read_file(path("whole/model.safetensors")));
}

TEST_F(Crash, ACheckpointThatFindsNoRoomLeavesTheLastOne) {
  Program first(command("model", {"--set", "run.steps=1000000"}));
  ASSERT_TRUE(reaches(first, "model", 4));
  first.send(SIGTERM);
  ASSERT_EQ(first.wait(), 130) << first.err();
  const std::string optimizer = read_file(path("model.checkpoint/optimizer.safetensors"));
  const std::string state = read_file(path("model.checkpoint/training_state.json"));

  // Files may not grow beyond 64 KiB: less than the weights take.
  Program full(command("model", {"--set", "run.steps=1000000", "--resume"},
                       {"/usr/bin/prlimit", "--fsize=65536"}));
  ASSERT_EQ(full.wait(), 1);
  EXPECT_NE(full.err().find("safetensors"), std::string::npos) << full.err();
  EXPECT_EQ(read_file(path("model.checkpoint/optimizer.safetensors")), optimizer);
  EXPECT_EQ(read_file(path("model.checkpoint/training_state.json")), state);
  EXPECT_FALSE(std::filesystem::exists(path("model.checkpoint.partial")));

  Program resumed(command("model", {"--resume"}));
  EXPECT_EQ(resumed.wait(), 0) << resumed.err();
}

TEST_F(Crash, ACheckpointIsNeitherPassedOverNorLostUnasked) {
  Program first(command("model", {"--set", "run.steps=1000000"}));
  ASSERT_TRUE(reaches(first, "model", 4));
  first.send(SIGTERM);
  ASSERT_EQ(first.wait(), 130) << first.err();
  const std::string state = read_file(path("model.checkpoint/training_state.json"));

  Program again(command("model"));
  ASSERT_EQ(again.wait(), 1);
  EXPECT_NE(again.err().find("model.checkpoint: a checkpoint after step"), std::string::npos)
      << again.err();
  EXPECT_NE(again.err().find("--resume"), std::string::npos) << again.err();
  EXPECT_EQ(read_file(path("model.checkpoint/training_state.json")), state);

  Program anew(command("model", {"--overwrite"}));
  ASSERT_EQ(anew.wait(), 0) << anew.err();
  EXPECT_EQ(losses("model").size(), 60U);
  EXPECT_EQ(losses("model").begin()->first, 2);
}

TEST_F(Crash, AFinishedRunIsNotBegunAgainUnasked) {
  Program first(command("model"));
  ASSERT_EQ(first.wait(), 0) << first.err();
  const std::string weights = read_file(path("model/model.safetensors"));
  const std::string log = read_file(path("model.jsonl"));

  const std::vector<std::string> other_seed = {"--set", "run.seed=5"};
  Program again(command("model", other_seed));
  ASSERT_EQ(again.wait(), 1);
  EXPECT_NE(again.err().find("--overwrite"), std::string::npos) << again.err();
  Program resumed(command("model", {"--resume"}));
  ASSERT_EQ(resumed.wait(), 0);
  EXPECT_NE(resumed.err().find("finished already"), std::string::npos) << resumed.err();
  EXPECT_EQ(read_file(path("model/model.safetensors")), weights);
  EXPECT_EQ(read_file(path("model.jsonl")), log);

  Program anew(command("model", {"--overwrite", "--set", "run.seed=5"}));
  ASSERT_EQ(anew.wait(), 0) << anew.err();
  EXPECT_NE(read_file(path("model/model.safetensors")), weights);
}

TEST_F(Crash, ALogThatWasLostComesBackWithTheCheckpoint) {
  Program whole(command("whole"));
  ASSERT_EQ(whole.wait(), 0) << whole.err();
  Program cut(command("cut"));
  ASSERT_TRUE(reaches(cut, "cut", 31)) << cut.err();
  cut.send(SIGTERM);
  ASSERT_EQ(cut.wait(), 130) << cut.err();
  std::filesystem::remove(path("cut.jsonl"));
  Program last(command("cut", {"--resume"}));
  ASSERT_EQ(last.wait(), 0) << last.err();
  EXPECT_EQ(losses("cut"), losses("whole"));
}

TEST_F(Crash, AFolderThatCannotBeWrittenIsAnErrorAtTheStart) {
  write_file(path("file"), "");
  Program program(command("file/model"));
  ASSERT_EQ(program.wait(), 1);
  EXPECT_NE(program.err().find("file/model"), std::string::npos) << program.err();
  EXPECT_EQ(program.err().find('\n'), program.err().size() - 1) << program.err();
}

TEST_F(Crash, ALossThatIsNotFiniteStopsTheRunAndKeepsItsBatch) {
  Program program(command(
      "model", {"--set", "optimizer.learning_rate=10.0", "--set", "optimizer.warmup_steps=0",
                "--set", "run.max_loss_jump=0", "--set", "optimizer.clip_norm=1e12", "--set",
                "optimizer.weight_decay=10.0", "--set", "run.steps=400"}));
  ASSERT_EQ(program.wait(), 1);
  EXPECT_NE(program.err().find("not finite"), std::string::npos) << program.err();
  EXPECT_NE(program.err().find("failed-batch"), std::string::npos) << program.err();
  const auto batch = unwrap(Safetensors::open(path("model.failed-batch.safetensors")));
  EXPECT_EQ(unwrap(batch->find("input_ids")).shape, (std::vector<int64_t>{8, 32}));
  EXPECT_EQ(unwrap(batch->find("targets")).dtype, DType::kI64);
}

TEST_F(Crash, ALossThatJumpsStopsTheRun) {
  Program program(command(
      "model", {"--set", "run.max_loss_jump=1e-6", "--set", "optimizer.learning_rate=0.0"}));
  ASSERT_EQ(program.wait(), 1);
  EXPECT_NE(program.err().find("run.max_loss_jump"), std::string::npos) << program.err();
}

TEST_F(Crash, CheckpointsAreCutIntoFilesOfTheStatedSize) {
  Program program(
      command("model", {"--set", "output.shard_bytes=40000", "--set", "run.steps=1000000"}));
  ASSERT_TRUE(reaches(program, "model", 4));
  program.send(SIGTERM);
  ASSERT_EQ(program.wait(), 130) << program.err();
  const auto checkpoint = path("model.checkpoint");
  int shards = 0;
  for (const auto& entry : std::filesystem::directory_iterator(checkpoint)) {
    const bool tensors = entry.path().extension() == ".safetensors";
    shards += tensors;
    // Headers, and tensors that are larger by themselves, come on top.
    if (tensors) {
      EXPECT_LT(entry.file_size(), 44000U) << entry.path();
    }
  }
  EXPECT_GT(shards, 4);
  EXPECT_TRUE(std::filesystem::exists(checkpoint / "model.safetensors.index.json"));
  EXPECT_EQ(load_model(checkpoint).config.n_layers(), 2);
  Program resumed(command("model", {"--set", "output.shard_bytes=40000", "--resume"}));
  EXPECT_EQ(resumed.wait(), 0) << resumed.err();
}

TEST(LossMonitor, FindsTheFirstBadStepAndOnlyLooksAtThoseThatAreDone) {
  const auto scalar = [](double value) { return at::scalar_tensor(value, at::kFloat); };
  LossMonitor monitor(1.0);
  for (int64_t step = 0; step < 5; ++step) monitor.add(step, scalar(3.0), scalar(0.1));
  monitor.add(5, scalar(4.5), scalar(0.1));
  monitor.add(6, scalar(std::nan("")), scalar(0.1));
  EXPECT_FALSE(monitor.check(2).has_value());
  const auto jump = monitor.check(0);
  ASSERT_TRUE(jump.has_value());
  EXPECT_EQ(jump->step, 5);
  EXPECT_NEAR(jump->mean_loss.value(), 3.0, 1e-6);
  const auto nan = monitor.check(0);
  ASSERT_TRUE(nan.has_value());
  EXPECT_EQ(nan->step, 6);
  EXPECT_FALSE(nan->mean_loss.has_value());
}

}  // namespace
}  // namespace kvcast::train
