// kvcast.h's batches: many prompts at once.
#include "capi/handles.h"

using namespace kvcast;
using namespace kvcast::capi;

namespace {

Batch::Progress progress_of(kvcast_progress_callback progress, void* user) {
  if (progress == nullptr) return {};
  return [progress, user](size_t done) { return progress(user, done) == 0; };
}

std::vector<int32_t> tokens_of(const kvcast_tokens& tokens) {
  return tokens.count == 0 ? std::vector<int32_t>()
                           : std::vector<int32_t>(tokens.data, tokens.data + tokens.count);
}

}  // namespace

kvcast_batch* kvcast_batch_new(const kvcast_model* model, const kvcast_batch_options* given,
                               char** error) {
  return guarded<kvcast_batch*>(error, nullptr, [&]() -> Result<kvcast_batch*> {
    KVCAST_TRY(const auto asked, known_fields(given));
    BatchOptions options;
    if (asked.max_batch != 0) options.max_batch = asked.max_batch;
    if (asked.max_cache_bytes != 0) options.max_cache_bytes = asked.max_cache_bytes;
    return Batch::create(model->model, options).map([](auto batch) {
      return new kvcast_batch{std::move(batch)};
    });
  });
}

void kvcast_batch_free(kvcast_batch* batch) { delete batch; }

int kvcast_batch_generate(kvcast_batch* batch, const kvcast_tokens* prompts, size_t count,
                          const kvcast_generate_options* asked, kvcast_progress_callback progress,
                          void* user, kvcast_answer** answers, char** error) {
  return guarded(error, -1, [&]() -> Result<int> {
    const auto options = options_of(asked);
    if (!options) return tl::unexpected(options.error());
    std::vector<std::vector<int32_t>> all;
    for (size_t i = 0; i < count; ++i) all.push_back(tokens_of(prompts[i]));
    std::vector<std::unique_ptr<kvcast_answer>> made(count);
    for (auto& answer : made) answer = std::make_unique<kvcast_answer>();
    auto completions = batch->batch->generate(all, *options, progress_of(progress, user));
    if (!completions) return tl::unexpected(completions.error());
    for (size_t i = 0; i < count; ++i) {
      made[i]->finished = std::move((*completions)[i]);
      answers[i] = made[i].release();
    }
    return 0;
  });
}

int kvcast_batch_score(kvcast_batch* batch, const kvcast_tokens* contexts,
                       const kvcast_tokens* continuations, size_t count, const char* prefill,
                       kvcast_progress_callback progress, void* user, float* logprobs,
                       unsigned char* most_probable, char** error) {
  return guarded(error, -1, [&]() -> Result<int> {
    std::vector<ScoreRequest> requests;
    for (size_t i = 0; i < count; ++i) {
      requests.push_back({tokens_of(contexts[i]), tokens_of(continuations[i])});
    }
    const auto scores = batch->batch->score(requests, prefill != nullptr ? prefill : "", 1,
                                            progress_of(progress, user));
    if (!scores) return tl::unexpected(scores.error());
    size_t at = 0;
    for (const auto& continuation : *scores) {
      for (const TokenScore& score : continuation) {
        logprobs[at] = score.logprob;
        if (most_probable != nullptr) {
          most_probable[at] = score.top.front().first == score.token ? 1 : 0;
        }
        ++at;
      }
    }
    return 0;
  });
}
