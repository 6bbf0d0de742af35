#include <fmt/format.h>

#include "base/macros.h"
#include "bench.h"
#include "io/json.h"
#include "model/json_fields.h"

namespace kvcast {
namespace {

constexpr int64_t kMost = int64_t{1} << 40;

Result<EarlierResult> read_result(const Json& json, const std::string& where) {
  if (!json.is_object()) return fail(fmt::format("{}: expected an object", where));
  const JsonFields fields(json, where);
  EarlierResult result;
  KVCAST_TRY(result.arch, fields.string("arch"));
  KVCAST_TRY(result.prefill, fields.string("prefill"));
  KVCAST_TRY(result.dtype, fields.string("dtype"));
  KVCAST_TRY(result.prompt_tokens, fields.integer("prompt_tokens", 1, kMost));
  KVCAST_TRY(result.batch, fields.integer("batch", 1, kMost));
  KVCAST_TRY(result.threads, fields.integer("threads", 1, kMost));
  if (!json.contains("ttft_ms") || !json["ttft_ms"].is_object()) {
    return fields.wrong("ttft_ms", "an object with median, p10 and p90");
  }
  constexpr double kLeastMs = 1e-9, kMostMs = 1e12;
  KVCAST_TRY(result.ttft_ms,
             JsonFields(json["ttft_ms"], where + ": ttft_ms").number("median", kLeastMs, kMostMs));
  KVCAST_TRY(result.decode_tokens_per_s, fields.number("decode_tokens_per_s", 0, 1e12));
  return result;
}

}  // namespace

Result<EarlierRun> read_earlier_run(const std::filesystem::path& file) {
  KVCAST_TRY(const Json json, read_json_object(file));
  const JsonFields fields(json, file.string());
  EarlierRun run;
  run.file = file.string();
  KVCAST_TRY(run.machine, fields.string("machine"));
  KVCAST_TRY(run.commit, fields.string("commit"));
  if (!json.contains("results") || !json["results"].is_array()) {
    return fields.wrong("results", "a list, as kvcast bench --format json prints");
  }
  for (size_t i = 0; i < json["results"].size(); ++i) {
    KVCAST_TRY(EarlierResult result,
               read_result(json["results"][i], fmt::format("{}: results[{}]", file.string(), i)));
    run.results.push_back(std::move(result));
  }
  return run;
}

const EarlierResult* EarlierRun::find(const BenchResult& now) const {
  for (const EarlierResult& then : results) {
    if (then.arch == now.arch && then.prefill == now.prefill && then.dtype == now.dtype &&
        then.prompt_tokens == now.prompt_tokens && then.batch == now.batch &&
        then.threads == now.threads) {
      return &then;
    }
  }
  return nullptr;
}

}  // namespace kvcast
