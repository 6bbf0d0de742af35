// Random traffic through the scheduler, round by round on one thread, held against what each
// request gets from a Session of its own: same tokens, every request ends once, nobody starves,
// memory limits hold, nothing is left behind. KVCAST_SCHEDULER_ROUNDS and KVCAST_SCHEDULER_SEED
// make a long run of it.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "runtime/model_impl.h"
#include "runtime/scheduler_rounds.h"
#include "server/scheduler_recorder.h"
#include "server/tiny_bundle.h"

namespace kvcast {
namespace {

constexpr int64_t kLongestPrompt = 90;
constexpr int64_t kLongestAnswer = 24;
constexpr int64_t kClients = 5;
constexpr std::array kStrategies = {"exact",
                                    "auxiliary",
                                    "kv-prediction:refine=off",
                                    "kv-prediction:tail=12,refine=off",
                                    "kv-prediction:refine=auto",
                                    "kv-prediction:tail=5,refine=3",
                                    "kv-prediction:tail=12,refine=off,mix=0.25",
                                    "kv-prediction:tail=5,refine=3,mix=0.5"};

int64_t from_environment(const char* name, int64_t otherwise) {
  const char* value = std::getenv(name);
  return value == nullptr ? otherwise : std::atoll(value);
}

struct Asked {
  EngineRequest request;
  std::shared_ptr<Recorder> recorder;
  std::shared_ptr<Ticket> ticket;
  int64_t since = 0;  // the round it was submitted in
  bool cancelled = false;
  bool admitted = false;
};

class Traffic {
 public:
  explicit Traffic(uint64_t seed) : random_(seed) {
    LoadOptions load;
    load.dtype = Dtype::kF32;
    load.threads = 1;
    auto loaded = Model::load(bundle_.path(), load);
    EXPECT_TRUE(loaded) << loaded.error().message;
    model_ = *loaded;
    const int64_t per_token = bytes_per_token();
    options_.chunk_tokens = 16;
    options_.idle_chunk_tokens = 48;
    options_.max_batch = 6;
    options_.max_queue = 20;
    options_.max_cache_bytes = 6 * 200 * per_token;  // tight: some wait for memory, not for a place
    options_.prefix_share = 0.3;
    // Beginnings that prompts share, and leave at different places.
    for (auto& trunk : trunks_) trunk = random_tokens(kLongestPrompt);
    restart();
  }

  void run(int64_t rounds) {
    for (int64_t i = 0; i < rounds && !::testing::Test::HasFailure(); ++i) {
      // Bursts, lulls in which stored prefixes are refined, and all between.
      if (i % 400 == 0) arrivals_ = std::array{0.0, 0.1, 0.4, 1.5}.at(random_() % 4);
      for (double left = arrivals_; chance(left); left -= 1) submit();
      if (chance(0.02)) cancel_one();
      one_round();
      if (chance(0.0005)) drain_and_restart(chance(0.5));
    }
    drain_and_restart(false);
  }

  [[nodiscard]] std::string summary() const {
    return fmt::format(
        "{} rounds, {} requests, {} compared, {} failed on purpose, {} from prefixes, {} tokens, "
        "{} of {} drafts",
        round_, asked_, compared_, failed_, reused_, tokens_, accepted_, drafted_);
  }
  [[nodiscard]] int64_t compared() const { return compared_; }
  [[nodiscard]] int64_t reused() const { return reused_; }
  [[nodiscard]] int64_t failed() const { return failed_; }
  [[nodiscard]] int64_t accepted() const { return accepted_; }

 private:
  bool chance(double probability) {
    return std::uniform_real_distribution{}(random_) < probability;
  }
  int64_t between(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random_);
  }
  std::vector<int32_t> random_tokens(int64_t count) {
    std::vector<int32_t> tokens(static_cast<size_t>(count));
    for (int32_t& token : tokens) token = static_cast<int32_t>(between(3, 399));
    return tokens;
  }
  [[nodiscard]] int64_t bytes_per_token() const {
    const Models& models = model_->impl().models;
    int64_t width = 0;
    for (const Transformer* of : {models.base.get(), models.auxiliary.get()}) {
      const ModelConfig& config = of->config();
      for (int64_t i = 0; i < config.n_layers(); ++i) width += config.kv_width(i);
    }
    return 2 * width * static_cast<int64_t>(sizeof(float));
  }

  EngineRequest make_request() {
    EngineRequest request;
    const auto& trunk = trunks_.at(static_cast<size_t>(between(0, 5)));
    const int64_t shared = between(0, kLongestPrompt - 1);
    request.prompt.assign(trunk.begin(), trunk.begin() + shared);
    // Few ends, so that whole prompts come again.
    const int64_t rest = between(1, std::min<int64_t>(4, kLongestPrompt - shared));
    for (int64_t i = 0; i < rest; ++i)
      request.prompt.push_back(static_cast<int32_t>(between(3, 5)));
    request.prefill = kStrategies.at(random_() % kStrategies.size());
    request.max_tokens = chance(0.05) ? 0 : between(1, kLongestAnswer);
    request.choices = chance(0.2) ? between(2, 4) : 1;
    request.ignore_end_of_text = chance(0.5);
    request.reuse_prefix = chance(0.9);
    request.report_progress = chance(0.3);
    request.client = fmt::format("client {}", between(0, kClients - 1));
    if (chance(0.3)) {
      request.sampling.temperature = 0.8F;
      request.sampling.seed = static_cast<uint64_t>(between(0, 3));
    }
    const bool heals = request.prefill.find("refine=off") == std::string::npos &&
                       request.prefill.starts_with("kv-prediction");
    request.revise = heals && chance(0.7);
    if (chance(0.6)) request.drafts = between(-1, 9);
    if (request.prefill == "exact" && chance(0.02)) request.pin_prefix = true;
    if (request.prefill == "exact" && chance(0.1)) {
      request.score_prompt = true;
      request.choices = 1;
    }
    if (chance(0.01)) request.deadline = SteadyClock::now();
    return request;
  }

  void submit() {
    EngineRequest request = make_request();
    std::optional<EngineError::Kind> refused;
    if (chance(0.02)) {
      refused = EngineError::Kind::kInvalid;
      switch (between(0, 3)) {
        case 0:
          request.prompt.clear();
          break;
        case 1:
          request.prompt.front() = 400;
          break;
        case 2:
          request.choices = options_.max_batch + 1;
          break;
        default:
          request.prompt.resize(257, 7);
          refused = EngineError::Kind::kContextLength;
      }
    }
    const SchedulerStats before = rounds_->stats();
    auto recorder = std::make_shared<Recorder>(std::max<int64_t>(request.choices, 1));
    auto ticket = rounds_->submit(request, recorder);
    if (refused || draining_) {
      ASSERT_FALSE(ticket);
      EXPECT_EQ(ticket.error().kind, refused.value_or(EngineError::Kind::kShuttingDown));
      EXPECT_FALSE(recorder->over);
      return;
    }
    if (!ticket) {
      EXPECT_TRUE(ticket.error().kind == EngineError::Kind::kTooLarge ||
                  (ticket.error().kind == EngineError::Kind::kQueueFull &&
                   before.waiting == options_.max_queue))
          << ticket.error().message;
      return;
    }
    ++asked_;
    asked.push_back({std::move(request), std::move(recorder), *ticket, round_});
  }

  void cancel_one() {
    if (asked.empty()) return;
    Asked& one = asked.at(random_() % asked.size());
    one.ticket->cancel();
    one.cancelled = true;
  }

  void one_round() {
    ++round_;
    rounds_->round();
    note_admissions();
    int64_t bytes = rounds_->pool().bytes();
    int64_t answers = 0;
    for (const auto& job : rounds_->running()) {
      answers += job->request.choices;
      int64_t of_job = 0;
      for (const auto& choice : job->choices) {
        of_job += choice->sequence.base.bytes() + choice->sequence.auxiliary.bytes();
      }
      EXPECT_LE(of_job, job->reserved_bytes) << "round " << round_ << ", " << job->request.prefill;
      bytes += of_job;
    }
    EXPECT_LE(bytes, options_.max_cache_bytes) << "round " << round_;
    EXPECT_LE(answers, options_.max_batch);
    std::erase_if(asked, [&](const Asked& one) {
      if (!one.recorder->over) {
        // Each round runs a row of somebody at least, and turns are taken.
        const int64_t most =
            (options_.max_queue + options_.max_batch) * (kLongestPrompt + 4 + 2 * kLongestAnswer);
        EXPECT_LE(round_ - one.since, most) << "starved";
        return false;
      }
      check(one);
      EXPECT_EQ(one.recorder.use_count(), 1) << "an observer that is over is still held";
      return true;
    });
  }

  /// Each client's requests in order; nobody is served twice while another waits.
  void note_admissions() {
    std::map<const RequestObserver*, Asked*> waiting;
    for (Asked& one : asked) {
      if (!one.admitted) waiting.emplace(one.recorder.get(), &one);
    }
    std::vector<Asked*> admitted;  // in this order, but for those that are over already
    for (const auto& job : rounds_->running()) {
      const auto one = waiting.find(job->observer.get());
      if (one == waiting.end()) continue;
      admitted.push_back(one->second);
      one->second->admitted = true;
      waiting.erase(one);
    }
    std::set<std::string> with_early_end;
    std::map<std::string, int64_t> waiting_since;  // the oldest of each client
    for (const Asked& one : asked) {
      if (one.admitted) continue;
      if (one.recorder->over) {
        with_early_end.insert(one.request.client);
      } else {
        waiting_since.try_emplace(one.request.client, one.since);
      }
    }
    const auto forget = [&](const auto& whose) {
      std::erase_if(overtaken_, [&](const auto& entry) { return whose(entry.first.first); });
    };
    for (const Asked* one : admitted) {
      const std::string& client = one->request.client;
      const auto same = waiting_since.find(client);
      EXPECT_TRUE(same == waiting_since.end() || same->second >= one->since)
          << "overtaken by a later request of the same client";
      forget([&](const std::string& other) { return other == client; });
      for (const auto& [other, since] : waiting_since) {
        if (other == client || since >= one->since || with_early_end.contains(other)) continue;
        const int64_t turns = ++overtaken_[std::pair(other, client)];
        EXPECT_LE(turns, 1) << other << " waits, " << client << " again";
      }
    }
    forget([&](const std::string& other) {
      return with_early_end.contains(other) || !waiting_since.contains(other);
    });
  }

  void check(const Asked& one) {
    const Recorder& recorder = *one.recorder;
    reused_ += recorder.timings.cached_tokens > 0 ? 1 : 0;
    drafted_ += recorder.timings.drafted_tokens;
    accepted_ += recorder.timings.accepted_tokens;
    if (recorder.error) {
      ++failed_;
      const EngineError::Kind kind = recorder.error->kind;
      const bool timed_out = kind == EngineError::Kind::kTimeout && one.request.deadline;
      if (kind == EngineError::Kind::kTooLarge) {  // for what pinned prefixes leave
        EXPECT_GT(rounds_->pool().pinned_bytes(), 0);
        return;
      }
      EXPECT_TRUE(timed_out || (kind == EngineError::Kind::kCancelled && one.cancelled))
          << recorder.error->message;
      return;
    }
    for (size_t i = 0; i < recorder.tokens.size() && one.request.max_tokens > 0; ++i) {
      tokens_ += std::ssize(recorder.tokens[i]);
      EXPECT_TRUE(recorder.ended.contains(static_cast<int64_t>(i)));
      const std::optional<std::vector<int32_t>> expected = alone(one.request, i);
      if (!expected) continue;
      ++compared_;
      const auto length = static_cast<size_t>(one.request.max_tokens);
      const std::vector<int32_t> beginning(
          expected->begin(),
          expected->begin() + static_cast<std::ptrdiff_t>(std::min(length, expected->size())));
      EXPECT_EQ(recorder.tokens[i], beginning)
          << recorder.timings.prefill << (one.request.revise ? ", revised" : "") << ", prompt of "
          << one.request.prompt.size() << ", cached " << recorder.timings.cached_tokens;
    }
    if (one.request.score_prompt) {
      EXPECT_EQ(std::ssize(recorder.scores), std::ssize(one.request.prompt) - 1);
      const auto [known, first] = scores_.try_emplace(one.request.prompt, recorder.scores);
      EXPECT_EQ(known->second, recorder.scores);
    }
  }

  /// The longest answer that a Session of its own gives; none where chance or the neighbours have a
  /// say: what is refined, and when, depends on what else runs.
  std::optional<std::vector<int32_t>> alone(const EngineRequest& request, size_t choice) {
    const bool heals = request.prefill.starts_with("kv-prediction") &&
                       request.prefill.find("refine=off") == std::string::npos;
    const bool sampled = request.sampling.temperature > 0;
    if (heals && (!request.revise || sampled)) return std::nullopt;
    GenerateOptions options{.prefill = heals ? "exact" : request.prefill,
                            .max_tokens = kLongestAnswer,
                            .sampling = request.sampling,
                            .ignore_end_of_text = request.ignore_end_of_text,
                            .drafts = 0};
    options.sampling.seed += choice;
    const auto key = std::tuple(request.prompt, options.prefill, sampled, options.sampling.seed,
                                options.ignore_end_of_text);
    if (const auto known = alone_.find(key); known != alone_.end()) return known->second;
    if (alone_.size() > 20'000) alone_.clear();
    Session session(model_);
    auto answer = session.generate(request.prompt, options);
    if (!answer) {
      ADD_FAILURE() << answer.error().message;
      return std::nullopt;
    }
    std::vector<int32_t> tokens = session.tokens();  // the end-of-text token among them
    tokens.erase(tokens.begin(), tokens.begin() + std::ssize(request.prompt));
    return alone_.emplace(key, std::move(tokens)).first->second;
  }

  void drain_and_restart(bool at_once) {
    if (at_once) {
      rounds_->cancel_all();
      for (Asked& one : asked) one.cancelled = true;
    } else {
      rounds_->drain();
    }
    draining_ = true;
    submit();
    const int64_t most_rounds = at_once ? 1 : 10'000;
    for (int64_t i = 0; !rounds_->idle() && i < most_rounds; ++i) one_round();
    EXPECT_TRUE(rounds_->idle());
    EXPECT_TRUE(asked.empty());
    const SchedulerStats stats = rounds_->stats();
    EXPECT_EQ(stats.running + stats.waiting + stats.cache_bytes, 0);
    rounds_->pool().shrink_to(0);
    EXPECT_EQ(rounds_->pool().bytes(), rounds_->pool().pinned_bytes());
    EXPECT_LE(rounds_->pool().pinned_bytes(), rounds_->pool().max_bytes());
    restart();
  }

  void restart() {
    rounds_.reset();  // what it still writes to the store is written
    options_.prefix_store = chance(0.3) ? store_.path() : std::filesystem::path();
    options_.max_store_bytes = 20 * 60 * bytes_per_token();
    auto made = SchedulerRounds::make(model_, options_);
    ASSERT_TRUE(made) << made.error().message;
    rounds_ = std::move(*made);
    draining_ = false;
    overtaken_.clear();
  }

  TinyBundle bundle_;
  TemporaryDirectory store_;
  std::shared_ptr<const Model> model_;
  SchedulerOptions options_;
  std::mt19937_64 random_;
  std::array<std::vector<int32_t>, 6> trunks_;
  std::unique_ptr<SchedulerRounds> rounds_;
  std::vector<Asked> asked;  // in the order of submission, until over
  std::map<std::pair<std::string, std::string>, int64_t> overtaken_;
  std::map<std::tuple<std::vector<int32_t>, std::string, bool, uint64_t, bool>,
           std::vector<int32_t>>
      alone_;
  std::map<std::vector<int32_t>, std::vector<float>> scores_;
  int64_t drafted_ = 0, accepted_ = 0;
  double arrivals_ = 0;
  bool draining_ = false;
  int64_t round_ = 0, asked_ = 0, compared_ = 0, failed_ = 0, reused_ = 0, tokens_ = 0;
};

TEST(SchedulerModel, RandomTrafficGetsWhatEachRequestGetsAlone) {
  const int64_t rounds = from_environment("KVCAST_SCHEDULER_ROUNDS", 20'000);
  const auto seed = static_cast<uint64_t>(from_environment("KVCAST_SCHEDULER_SEED", 1));
  Traffic traffic(seed);
  traffic.run(rounds);
  if (HasFailure()) GTEST_FAIL() << "seed " << seed << ": " << traffic.summary();
  EXPECT_GT(traffic.compared(), rounds / 40);
  EXPECT_GT(traffic.reused(), rounds / 100);
  EXPECT_GT(traffic.failed(), 0);
  EXPECT_GT(traffic.accepted(), rounds / 100);
  std::cout << traffic.summary() << "\n";
}

}  // namespace
}  // namespace kvcast
