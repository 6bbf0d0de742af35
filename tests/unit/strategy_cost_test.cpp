// What strategies say they cost, against the paper's tables and against each other.
#include <gtest/gtest.h>

#include "model/architectures.h"
#include "prefill/strategy.h"

namespace kvcast {
namespace {

ModelPair paper_pair() { return *named_pair("openelm-1.1b", "openelm-270m"); }

double paper(const std::string& spec, int64_t tokens = 512) {
  return (*PrefillStrategy::parse(spec))->paper_reduction(paper_pair(), tokens);
}
double flops(const std::string& spec, int64_t tokens = 512) {
  return (*PrefillStrategy::parse(spec))->cost(paper_pair(), tokens).total();
}

// The paper's Table 3 (method §7), to the digits it prints.
TEST(StrategyCost, PaperReductionsAreThoseOfThePapersTable) {
  const std::pair<const char*, double> printed[] = {
      {"exact", 1.00},         {"auxiliary", 3.98},      {"kv-prediction", 3.98},
      {"random:0.75", 1.33},   {"random:0.5", 2.00},     {"random:0.25", 4.00},
      {"static:0.5", 1.33},    {"static:0.25", 2.00},    {"lazy:0.75-0.75", 1.21},
      {"lazy:0.75-0.5", 1.38}, {"lazy:0.75-0.25", 1.60}, {"lazy:0.5-0.5", 1.54},
      {"lazy:0.5-0.25", 1.82}, {"lazy:0.5-0.1", 2.04},   {"lazy:0.5-0.05", 2.13},
      {"lazy:0.5-0.01", 2.20}};
  for (const auto& [spec, reduction] : printed) EXPECT_NEAR(paper(spec), reduction, 0.005) << spec;
}

TEST(StrategyCost, KeepingEverythingCostsWhatExactCosts) {
  for (const char* spec :
       {"random:1", "static:1", "lazy:1-1", "zero-cache:tail=512", "kv-prediction:tail=512"}) {
    EXPECT_DOUBLE_EQ(flops(spec), flops("exact")) << spec;
  }
}

TEST(StrategyCost, OfAMixIsThatOfBothModels) {
  for (const int64_t tokens : {2, 40, 512}) {
    const double alone = flops("auxiliary", tokens);
    const PrefillCost forecast =
        (*PrefillStrategy::parse("kv-prediction:tail=1"))->cost(paper_pair(), tokens);
    EXPECT_DOUBLE_EQ(flops("kv-prediction:mix=0.5", tokens),
                     forecast.total() - forecast.auxiliary + alone);
  }
  EXPECT_DOUBLE_EQ(flops("kv-prediction:tail=512,mix=0.5"), flops("exact"));  // nothing is forecast
  EXPECT_DOUBLE_EQ(paper("kv-prediction:mix=0.5"), paper("kv-prediction"));
}

TEST(StrategyCost, ExactCountsAreNearTheApproximation) {
  const auto counted = [](const char* spec) { return flops("exact") / flops(spec); };
  EXPECT_NEAR(counted("random:0.5") / paper("random:0.5"), 1, 0.15);
  // OpenELM's layers grow with depth: those that see everything are the small ones.
  for (const char* spec : {"static:0.5", "lazy:0.75-0.25"}) {
    EXPECT_GT(counted(spec), paper(spec)) << spec;
    EXPECT_LT(counted(spec), 1.5 * paper(spec)) << spec;
  }
}

TEST(StrategyCost, OfDroppingFewerTokensIsHigher) {
  EXPECT_LT(flops("random:0.25"), flops("random:0.5"));
  EXPECT_LT(flops("static:0.25"), flops("static:0.5"));
  EXPECT_LT(flops("lazy:0.5-0.1"), flops("lazy:0.5-0.25"));
  EXPECT_LT(flops("zero-cache"), flops("zero-cache:tail=2"));
}

}  // namespace
}  // namespace kvcast
