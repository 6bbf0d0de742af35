#include <gtest/gtest.h>

#include <cstdlib>

#include "kernels/isa.h"
#include "kernels/kernels.h"

namespace kvcast {
namespace {

/// Sets KVCAST_ISA for a scope.
class ScopedVariable {
 public:
  explicit ScopedVariable(const char* value) {
    if (const char* const before = std::getenv(kName)) before_ = before;
    setenv(kName, value, 1);
  }
  ~ScopedVariable() {
    if (before_.empty()) {
      unsetenv(kName);
    } else {
      setenv(kName, before_.c_str(), 1);
    }
  }

 private:
  static constexpr const char* kName = "KVCAST_ISA";
  std::string before_;
};

TEST(Isa, PortableIsAlwaysThere) {
  EXPECT_EQ(supported_isas().front(), Isa::kPortable);
  EXPECT_EQ(find_isa("portable").value(), Isa::kPortable);
}

TEST(Isa, NamesRoundTrip) {
  for (const Isa isa : supported_isas()) EXPECT_EQ(find_isa(isa_name(isa)).value(), isa);
}

TEST(Isa, UnknownNameInTheEnvironmentIsAnErrorThatListsTheKnownOnes) {
  const ScopedVariable variable("mmx");
  const auto isa = isa_from_environment();
  ASSERT_FALSE(isa);
  EXPECT_NE(isa.error().message.find("KVCAST_ISA"), std::string::npos);
  EXPECT_NE(isa.error().message.find("'mmx'"), std::string::npos);
  EXPECT_NE(isa.error().message.find("portable"), std::string::npos);
}

TEST(Isa, EnvironmentForcesOne) {
  const ScopedVariable variable("portable");
  EXPECT_EQ(isa_from_environment().value(), Isa::kPortable);
}

TEST(Isa, EmptyVariableMeansTheBestOne) {
  const ScopedVariable variable("");
  EXPECT_EQ(isa_from_environment().value(), supported_isas().back());
}

TEST(Isa, ProcessorGetsTheBestThatItHas) {
  // Emulators are told which processor to be (scripts/test-aarch64.sh).
  const char* const expected = std::getenv("KVCAST_EXPECTED_ISA");
  if (expected == nullptr) GTEST_SKIP() << "KVCAST_EXPECTED_ISA is not set";
  EXPECT_EQ(isa_name(supported_isas().back()), expected);
}

TEST(Isa, ScopeRestoresWhatWasActive) {
  const Isa before = active_isa();
  {
    const ScopedIsa scoped(Isa::kPortable);
    EXPECT_EQ(active_isa(), Isa::kPortable);
  }
  EXPECT_EQ(active_isa(), before);
}

TEST(Measure, EveryIsaHasAPeakAndABandwidth) {
  for (const Isa isa : supported_isas()) {
    const ScopedIsa scoped(isa);
    for (const WeightType type : kWeightTypes) {
      EXPECT_GT(measure_peak_ops_per_s(type, 1, 0.01), 1e6);
    }
  }
  EXPECT_GT(measure_read_bytes_per_s(1, 0.01), 1e6);
}

}  // namespace
}  // namespace kvcast
