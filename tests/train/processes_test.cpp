// Two processes over Gloo on this machine against one.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "train/gradients.h"
#include "train/model_files.h"
#include "trained_program.h"

namespace kvcast::train {
namespace {

/// A port that was free a moment ago.
int free_port() {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
  close(fd);
  return ntohs(address.sin_port);
}

class TwoProcesses : public TrainedProgram {
 protected:
  /// Runs the recipe as two processes. OpenMP's threads would take the cores from each other.
  void run(const std::string& name, const std::vector<std::string>& options,
           const std::vector<int>& expected_status, int signal_first = 0) {
    const std::string port = std::to_string(free_port());
    std::vector<std::unique_ptr<Program>> programs;
    for (int rank = 0; rank < 2; ++rank) {
      programs.push_back(std::make_unique<Program>(
          command(name, options,
                  {"/usr/bin/env", "RANK=" + std::to_string(rank), "WORLD_SIZE=2",
                   "LOCAL_RANK=" + std::to_string(rank), "MASTER_ADDR=127.0.0.1",
                   "MASTER_PORT=" + port, "OMP_NUM_THREADS=1"})));
    }
    if (signal_first != 0) {
      while (losses(name).size() < 2 && programs[0]->wait(std::chrono::milliseconds(2)) < 0) {
      }
      programs[0]->send(signal_first);
    }
    for (size_t rank = 0; rank < 2; ++rank) {
      EXPECT_EQ(programs[rank]->wait(), expected_status[rank]) << programs[rank]->err();
    }
  }
};

TEST_F(TwoProcesses, FollowTheCurveOfOneAtTheSameGlobalBatch) {
  Program alone(command("one"));
  ASSERT_EQ(alone.wait(), 0) << alone.err();
  run("two", {}, {0, 0});
  const auto one = losses("one"), two = losses("two");
  ASSERT_EQ(two.size(), one.size());
  for (const auto& [step, loss] : one) EXPECT_NEAR(two.at(step), loss, 1e-4 * loss) << step;
  const LoadedModel a = load_model(path("one")), b = load_model(path("two"));
  for (const auto& [name, value] : a.values) {
    EXPECT_LT((value - b.values.at(name)).abs().max().item<double>(), 1e-3) << name;
  }
}

TEST_F(TwoProcesses, StopTogetherAndGoOnAsOne) {
  run("two", {"--set", "run.steps=1000000"}, {130, 130}, SIGTERM);
  Program alone(command("two", {"--resume", "--set", "optimizer.warmup_steps=5"}));
  EXPECT_EQ(alone.wait(), 0) << alone.err();
}

TEST_F(TwoProcesses, NeedABatchThatTheyCanShare) {
  run("odd", {"--set", "run.accumulation=3"}, {1, 1});
}

TEST(Gradients, OfOneProcessAreThoseOfAutogradWhateverTheBuckets) {
  const std::vector<ParameterSpec> specs = {
      {"a", {3, 5}}, {"norm", {5}, Init::kOnes}, {"b", {4, 5}}, {"unused", {2, 2}}, {"c", {70, 2}}};
  const auto loss = [](const TensorMap& v) {
    return (v.at("a").sum() * v.at("b").square().sum() + (v.at("norm") * 3.0).sum() +
            v.at("c").exp().sum() + v.at("a").square().sum());
  };
  TensorMap plain = initial_values(specs, 1);
  for (auto& [name, leaf] : plain) leaf.set_requires_grad(true);
  for (int i = 0; i < 2; ++i) loss(plain).backward();
  for (const int64_t bytes : {1, 300, 1 << 20}) {
    FlatParameters parameters(specs, initial_values(specs, 1), at::kCPU, {.bucket_bytes = bytes});
    Gradients sums(parameters);
    for (const bool last : {false, true}) loss(sums.views(last)).backward();
    sums.finish();
    const TensorMap found = sums.by_name();
    for (const auto& [name, leaf] : plain) {
      const Tensor expected = leaf.grad().defined() ? leaf.grad() : at::zeros_like(leaf);
      EXPECT_TRUE(at::allclose(found.at(name), expected)) << name;
    }
  }
}

TEST(FlatParameters, SharesTakenApartAreTheValuesAgain) {
  const std::vector<ParameterSpec> specs = {{"a", {30, 5}}, {"norm", {7}}, {"b", {9, 9}}};
  const TensorMap values = initial_values(specs, 2);
  for (const int64_t shares : {1, 3}) {
    const ParameterLayout layout(specs, shares, 400);
    EXPECT_EQ(layout.buckets().size(), 3U);
    for (const auto& bucket : layout.buckets()) EXPECT_EQ(bucket.length % shares, 0);
    EXPECT_EQ(layout.buckets()[layout.slots().at("b").bucket].offset,
              layout.slots().at("b").offset);
  }
  FlatParameters parameters(specs, values, at::kCPU);
  for (const auto& [name, value] : parameters.gathered(parameters.master())) {
    EXPECT_TRUE(at::equal(value, values.at(name))) << name;
  }
}

}  // namespace
}  // namespace kvcast::train
