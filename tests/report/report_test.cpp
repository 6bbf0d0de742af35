// From result files to tables, figures and the page.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "report/page.h"
#include "report/svg_check.h"
#include "support/run_program.h"
#include "support/temporary_directory.h"

namespace kvcast::report {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

// ---- files as kvcast eval and kvcast bench write them ----

Json estimate(double value, double half = 0.01) {
  return {{"value", value}, {"low", value - half}, {"high", value + half}};
}

Json eval_entry(const std::string& task, const std::string& prefill, const char* metric,
                double value, double reduction, double ttft) {
  return {{"task", task},
          {"prefill", prefill},
          {"scoring", "mixed"},
          {"n", 1000},
          {metric, estimate(value)},
          {"prompt_tokens", 50},
          {"flops_reduction", {{"paper", reduction}, {"exact", reduction * 1.1}}},
          {"ttft_ms", {{"median", ttft}, {"p10", ttft * 0.9}, {"p90", ttft * 1.2}}},
          {"total_ms", {{"1", ttft}, {"16", ttft + 150}}},
          {"auxiliary_break_even_tokens", prefill == "auxiliary" ? Json(nullptr) : Json(3)},
          {"peak_rss_bytes", 104857600}};
}

Json eval_file(const std::string& label, int64_t base, int64_t auxiliary,
               std::vector<Json> results) {
  Json model = {{"path", "models/x"},
                {"label", label},
                {"dtype", "bf16"},
                {"base", {{"parameters", base}, {"sha256", "b" + std::to_string(base)}}}};
  if (auxiliary > 0) model["auxiliary"] = {{"parameters", auxiliary}, {"sha256", "a"}};
  return {{"kind", "kvcast-eval"},
          {"format", 1},
          {"commit", "abc"},
          {"machine", "M"},
          {"threads", 2},
          {"model", std::move(model)},
          {"results", std::move(results)}};
}

/// A bundle of 60M and 10M, its base beside, and a model of 10M alone.
std::vector<Json> family(const std::string& task = "triviaqa", const char* metric = "exact_match") {
  return {eval_file("KVP-C-10M ours", 60'000'000, 10'000'000,
                    {eval_entry(task, "exact", metric, 0.20, 1, 10),
                     eval_entry(task, "kv-prediction", metric, 0.16, 6, 2.5),
                     eval_entry(task, "auxiliary", metric, 0.08, 6, 2),
                     eval_entry(task, "lazy:0.75-0.25", metric, 0.10, 1.6, 7)}),
          eval_file("KVP-C-10M paper", 60'000'000, 10'000'000,
                    {eval_entry(task, "exact", metric, 0.20, 1, 12),
                     eval_entry(task, "kv-prediction", metric, 0.12, 6, 3)}),
          eval_file("10M", 10'000'000, 0, {eval_entry(task, "exact", metric, 0.09, 1, 2)})};
}

Results parsed(const std::vector<Json>& files) {
  Results results;
  for (size_t i = 0; i < files.size(); ++i) {
    const auto known = add_result_file(files[i], "file" + std::to_string(i) + ".json", results);
    EXPECT_TRUE(known) << known.error().message;
    EXPECT_TRUE(known && *known);
  }
  return results;
}

std::string error_of(const Json& file) {
  Results results;
  const auto known = add_result_file(file, "bad.json", results);
  EXPECT_FALSE(known);
  return known ? "" : known.error().message;
}

Json bench_file() {
  Json results = Json::array();
  for (const int tokens : {128, 512}) {
    for (const std::string prefill : {"exact", "kv-prediction"}) {
      const double ttft = (prefill == "exact" ? 2.0 : 0.5) * tokens;
      results.push_back({{"arch", "openelm-1.1b<-openelm-270m"},
                         {"prefill", prefill},
                         {"dtype", "bf16"},
                         {"prompt_tokens", tokens},
                         {"batch", 1},
                         {"threads", 2},
                         {"ttft_ms", {{"median", ttft}, {"p10", ttft}, {"p90", ttft}}},
                         {"decode_tokens_per_s", 20.0}});
    }
  }
  return {{"machine", "M"}, {"isa", "avx2"}, {"commit", "c"}, {"threads", 2}, {"results", results}};
}

// ---- comparisons ----

TEST(Comparisons, PutTheExactBaseFirstAndOnce) {
  const Results results = parsed(family());
  const auto comparisons = compare(results.evals);
  ASSERT_EQ(comparisons.size(), 1);
  const Comparison& c = comparisons[0];
  EXPECT_EQ(c.base, "base 60M");
  std::vector<std::string> rows;
  for (const Entry& entry : c.entries) rows.push_back(entry.method + "/" + entry.name);
  EXPECT_THAT(rows, ElementsAre("exact/exact", "KV prediction (ours)/KVP-C-10M",
                                "KV prediction (paper)/KVP-C-10M", "alone/10M",
                                "its auxiliary alone (ours)/KVP-C-10M", "LazyLLM/0.75-0.25"));
}

TEST(Comparisons, CostsAreSharesOfExactInTheSameFile) {
  const Results results = parsed(family());
  const Comparison c = compare(results.evals)[0];
  EXPECT_DOUBLE_EQ(c.entries[1].ttft_share, 0.25);  // 2.5 of 10
  EXPECT_DOUBLE_EQ(c.entries[2].ttft_share, 0.25);  // 3 of 12
  EXPECT_DOUBLE_EQ(c.entries[1].flops_share_paper, 1.0 / 6);
  EXPECT_DOUBLE_EQ(cost_of(c.entries[1], Cost::kFlops), 1 / 6.6);
  EXPECT_DOUBLE_EQ(cost_of(c.entries[3], Cost::kFlops), 1.0 / 6);  // alone: by parameters
  EXPECT_DOUBLE_EQ(c.entries[3].ttft_share, 0.2);
}

TEST(Comparisons, KeepTasksLengthsAndBasesApart) {
  auto files = family();
  files.push_back(eval_file("other", 30'000'000, 5'000'000,
                            {eval_entry("triviaqa", "kv-prediction", "exact_match", 0.1, 4, 3)}));
  Json passkey = eval_entry("passkey", "exact", "exact_match", 1, 1, 1);
  passkey["length"] = 256;
  Json longer = passkey;
  longer["length"] = 512;
  files.push_back(eval_file("KVP-C-10M ours", 60'000'000, 10'000'000, {passkey, longer}));
  const Results results = parsed(files);
  EXPECT_EQ(compare(results.evals).size(), 4);
}

TEST(QualityTable, HasThePapersColumns) {
  const Results results = parsed(family());
  const Table table = quality_table(compare(results.evals)[0]).table;
  EXPECT_THAT(table.headers,
              ElementsAre("method", "model", "FLOPs ÷ (paper)", "FLOPs ÷ (count)", "TTFT ms",
                          "TTFT ÷", "exact match (%)", "% of exact", "n"));
  EXPECT_THAT(table.rows[1], ElementsAre("KV prediction (ours)", "KVP-C-10M", "6.00", "6.60",
                                         "2.50", "4.00", "16.0 [15.0, 17.0]", "80.0", "1,000"));
}

TEST(QualityTable, OfLikelihoodsShowsTheDifference) {
  const Results results = parsed(family("nll", "nll"));
  const Comparison c = compare(results.evals)[0];
  EXPECT_FALSE(c.style.higher_is_better);
  const Table table = quality_table(c).table;
  EXPECT_THAT(table.headers, Contains("negative log-likelihood (nats/token)"));
  EXPECT_THAT(table.rows[1], Contains("-0.040"));
}

TEST(EqualCostTable, InterpolatesTheOtherMethodsFromRawScores) {
  const Results results = parsed(family());
  const auto tables = equal_cost_tables(compare(results.evals)[0]);
  ASSERT_EQ(tables.size(), 2);
  const Table& ttft = tables[1].table;
  const auto lazy = std::ranges::find(ttft.headers, "LazyLLM") - ttft.headers.begin();
  const auto alone = std::ranges::find(ttft.headers, "alone") - ttft.headers.begin();
  // At a quarter of exact's TTFT LazyLLM (0.7 of it) has no point; alone: 9 + (20 - 9) * 0.05 /
  // 0.8.
  EXPECT_EQ(ttft.rows[0][lazy], "–");
  EXPECT_EQ(ttft.rows[0][alone], "9.7 (48%)");
  EXPECT_EQ(ttft.rows[0][2], "16.0 (80%)");
}

TEST(FrontierStatement, NamesThePointsOnItAndTheOthers) {
  const Results results = parsed(family());
  const std::string text = frontier_statement(compare(results.evals)[0], Cost::kTtft);
  const auto split = text.find("Not on it");
  ASSERT_NE(split, std::string::npos);
  const std::string on = text.substr(0, split), off = text.substr(split);
  EXPECT_THAT(on, AllOf(HasSubstr("exact"), HasSubstr("KV prediction (ours) KVP-C-10M"),
                        HasSubstr("alone 10M")));
  EXPECT_THAT(off, AllOf(HasSubstr("LazyLLM"), HasSubstr("KV prediction (paper)")));
}

TEST(Controls, AreInTheTableButNeverOnTheFrontier) {
  auto files = family();
  files[0]["results"].push_back(eval_entry("triviaqa", "zero-cache", "exact_match", 0.19, 50, 1));
  const Results results = parsed(files);
  const Comparison c = compare(results.evals)[0];
  EXPECT_THAT(quality_table(c).table.rows.back(), Contains("zero-cache"));
  EXPECT_THAT(frontier_statement(c, Cost::kFlops), Not(HasSubstr("zero-cache")));
  for (const NamedTable& named : equal_cost_tables(c)) {
    EXPECT_THAT(named.table.headers, Not(Contains("zero-cache")));
  }
}

TEST(MultipleChoiceTable, AveragesOnlyCompleteRows) {
  auto files = family("piqa", "acc_norm");
  for (const Json& file : family("boolq", "acc")) files.push_back(file);
  files.pop_back();  // the model alone has no boolq
  const Results results = parsed(files);
  const auto tables = multiple_choice_tables(compare(results.evals));
  ASSERT_EQ(tables.size(), 1);
  const Table& table = tables[0].table;
  EXPECT_THAT(table.headers,
              ElementsAre("method", "model", "BoolQ (acc)", "PIQA (acc_norm)", "mean"));
  EXPECT_EQ(table.rows[0].back(), "20.0");
  const auto alone = std::ranges::find(table.rows, "alone", [](const auto& row) { return row[0]; });
  ASSERT_NE(alone, table.rows.end());
  EXPECT_EQ(alone->back(), "–");
}

TEST(AblationTable, OrdersBundlesAndMeasuresTheGap) {
  auto files = family("nll", "nll");
  files[2]["results"][0]["nll"] = estimate(0.40);  // alone
  files.push_back(eval_file("KVP-C-10M split", 60'000'000, 10'000'000,
                            {eval_entry("nll", "kv-prediction", "nll", 0.30, 6, 3)}));
  const Results results = parsed(files);
  const auto tables = ablation_tables(compare(results.evals)[0]);
  ASSERT_EQ(tables.size(), 1);
  const auto& rows = tables[0].table.rows;
  EXPECT_EQ(rows[0][0], "KVP-C-10M paper");
  EXPECT_EQ(rows[2][0], "KVP-C-10M split");
  EXPECT_EQ(rows[2][2], "50.0");
}

TEST(Pareto, FigureMarksTheFrontierAndIsWhole) {
  const Results results = parsed(family());
  const Figure figure = pareto_figure(compare(results.evals)[0]);
  ASSERT_EQ(figure.panels.size(), 2);
  const auto document = XmlDocument::parse(to_svg(figure));
  ASSERT_TRUE(document);
  EXPECT_TRUE(document->shows("frontier"));
  EXPECT_TRUE(document->shows("TTFT reduction (×)"));
  EXPECT_TRUE(document->shows("KVP-C-10M"));
}

TEST(HeldoutTable, OrdersBundlesByTheGapTheyClose) {
  const auto row = [](const char* model, double nll) {
    return Json{{"model", model},
                {"suffix_nll",
                 {{"exact", {{"value", 2.0}, {"standard_error", 0.01}}},
                  {"auxiliary", {{"value", 3.0}, {"standard_error", 0.01}}},
                  {"kv-prediction:tail=1", {{"value", nll}, {"standard_error", 0.02}}}}},
                {"share_of_gap_closed", {{"kv-prediction:tail=1", 3.0 - nll}}}};
  };
  Json file = {{"windows", 100},
               {"prefix_tokens", 384},
               {"suffix_tokens", 128},
               {"alone", {{"model", "out/alone"}, {"suffix_nll", 3.0}}},
               {"results", {row("out/paper", 2.9), row("out/ours/", 2.25)}}};
  const Results results = parsed({file});
  ASSERT_EQ(results.heldouts.size(), 1);
  const Table table = to_table(results.heldouts[0]);
  EXPECT_THAT(table.headers, ElementsAre("model", "exact", "its auxiliary", "kv-prediction:tail=1",
                                         "gap closed (%)"));
  EXPECT_THAT(table.rows[0],
              ElementsAre("ours", "2.000 ± 0.010", "3.000 ± 0.010", "2.250 ± 0.020", "75.0"));
  EXPECT_EQ(table.rows[1][0], "paper");
  file["results"][1]["suffix_nll"]["exact"] = 5;
  EXPECT_THAT(error_of(file), AllOf(HasSubstr("entry 1"), HasSubstr("\"exact\"")));
}

// ---- speed ----

TEST(SpeedTable, ComparesWithExactWithinTheRun) {
  const Results results = parsed({bench_file()});
  const auto sections = speed_sections(results.benches);
  ASSERT_EQ(sections.size(), 1);
  const Table& table = sections[0].tables[0].table;
  EXPECT_THAT(table.headers,
              ElementsAre("batch", "prompt", "exact", "kv-prediction", "÷", "step ms"));
  EXPECT_THAT(table.rows[1], ElementsAre("1", "512", "1024.00", "256.00", "4.00", "50.00"));
  EXPECT_EQ(sections[0].figures.size(), 2);
}

TEST(SpeedFiles, MayHoldSeveralRunsWithDistinctFigures) {
  const Results results = parsed({Json{{"note", "x"}, {"runs", {bench_file(), bench_file()}}}});
  EXPECT_EQ(results.benches.size(), 2);
  std::vector<std::string> ids;
  const auto sections = speed_sections(results.benches);
  for (const Figure& figure : sections[0].figures) ids.push_back(figure.id);
  std::ranges::sort(ids);
  EXPECT_EQ(std::ranges::adjacent_find(ids), ids.end());
}

// ---- wrong files ----

TEST(ResultFiles, ErrorsNameFileAndKey) {
  const auto with = [](Json file, const char* pointer, Json value) {
    file[Json::json_pointer(pointer)] = std::move(value);
    return file;
  };
  const Json eval = family()[0], bench = bench_file();
  EXPECT_THAT(error_of(with(eval, "/format", 2)),
              AllOf(HasSubstr("bad.json"), HasSubstr("\"format\"")));
  EXPECT_THAT(error_of(with(eval, "/results", 3)), HasSubstr("\"results\""));
  EXPECT_THAT(error_of(with(eval, "/results/1/n", -1)),
              AllOf(HasSubstr("entry 1"), HasSubstr("\"n\"")));
  EXPECT_THAT(error_of(with(eval, "/results/1/exact_match/value", "x")),
              HasSubstr("\"exact_match\""));
  EXPECT_THAT(error_of(with(eval, "/results/1/exact_match", 0.5)), HasSubstr("no metric"));
  EXPECT_THAT(error_of(with(eval, "/results/1/ttft_ms", Json::array())), HasSubstr("\"ttft_ms\""));
  EXPECT_THAT(error_of(with(eval, "/results/1/total_ms", {{"x", 1}})), HasSubstr("\"total_ms\""));
  EXPECT_THAT(error_of(with(eval, "/model/base", 1)), HasSubstr("\"base\""));
  EXPECT_THAT(error_of(with(bench, "/results/2/prompt_tokens", 0)),
              AllOf(HasSubstr("entry 2"), HasSubstr("\"prompt_tokens\"")));
  EXPECT_THAT(error_of(with(bench, "/results/0/ttft_ms/median", nullptr)), HasSubstr("\"median\""));
}

TEST(ResultFiles, OfOtherKindsAreNotTaken) {
  Results results;
  for (const Json& other : {Json{{"bundle", "x"}}, Json{{"results", {1, 2}}}, Json{{"runs", "x"}},
                            Json{{"kind", "something"}, {"results", {{{"task", "x"}}}}}}) {
    const auto known = add_result_file(other, "other.json", results);
    ASSERT_TRUE(known) << known.error().message;
    EXPECT_FALSE(*known);
  }
}

TEST(ResultFiles, NullsAreGaps) {
  Json file = family()[0];
  file["results"][1]["exact_match"] = {{"value", 0.5}, {"low", nullptr}, {"high", nullptr}};
  file["results"][1]["total_ms"]["16"] = nullptr;
  const Results results = parsed({file});
  const Comparison c = compare(results.evals)[0];
  EXPECT_THAT(quality_table(c).table.rows[1], Contains("50.0"));
  EXPECT_TRUE(XmlDocument::parse(to_svg(total_time_figure(c))));
}

// ---- the page ----

Report sample_report() {
  auto files = family();
  files.push_back(bench_file());
  for (const Json& file : family("nll", "nll")) files.push_back(file);
  const Results results = parsed(files);
  return {.title = "A <title>",
          .made_by = "test",
          .sections = make_sections(results),
          .notes = {"a & b"}};
}

TEST(Page, IsWellFormedAndAsksForNothing) {
  std::string html = to_html(sample_report());
  ASSERT_TRUE(html.starts_with("<!doctype html>\n"));
  html.erase(0, html.find('\n') + 1);
  const auto document = XmlDocument::parse(html);
  ASSERT_TRUE(document);
  EXPECT_TRUE(document->shows("A &lt;title&gt;"));
  EXPECT_FALSE(document->named("svg").empty());
  EXPECT_FALSE(document->named("table").empty());
  for (const XmlElement& element : document->elements()) {
    EXPECT_THAT(element.name, Not(testing::AnyOf("script", "link", "img", "iframe", "object")));
    for (const char* attribute : {"src", "href"}) {
      const auto found = element.attributes.find(attribute);
      EXPECT_TRUE(found == element.attributes.end() || found->second.starts_with("#"));
    }
    if (element.name == "style") {
      EXPECT_THAT(element.text, AllOf(Not(HasSubstr("url(")), Not(HasSubstr("@import"))));
    }
  }
}

TEST(Page, IdsAreUnique) {
  std::string html = to_html(sample_report());
  html.erase(0, html.find('\n') + 1);
  const auto document = XmlDocument::parse(html);
  ASSERT_TRUE(document);
  std::vector<std::string> ids;
  for (const XmlElement& element : document->elements()) {
    if (element.attributes.contains("id")) ids.push_back(element.attributes.at("id"));
  }
  std::ranges::sort(ids);
  const auto twice = std::ranges::adjacent_find(ids);
  EXPECT_TRUE(twice == ids.end()) << *twice;
}

TEST(TableText, EscapesWhatEachFormReserves) {
  const Table table{.headers = {"a|b", "n"}, .rows = {{"x<y", "1,5"}}};
  EXPECT_THAT(table.to_markdown(), HasSubstr("a\\|b"));
  EXPECT_THAT(table.to_html(),
              AllOf(HasSubstr("<td>x&lt;y</td>"), HasSubstr("<td class=\"n\">1,5</td>")));
  EXPECT_THAT(table.to_csv(), HasSubstr("\"1,5\""));
}

// ---- the commands ----

class Commands : public testing::Test {
 protected:
  std::string path(const char* relative) const { return (root_.path() / relative).string(); }
  TemporaryDirectory root_;
};

TEST_F(Commands, ReportWritesPageTablesAndFigures) {
  const auto files = family();
  for (size_t i = 0; i < files.size(); ++i) {
    root_.write("in/" + std::to_string(i) + ".json", files[i].dump());
  }
  root_.write("in/bench.json", bench_file().dump());
  root_.write("in/other.json", "{\"some\": \"file\"}");
  root_.write("in/model/config.json", "{}");
  root_.write("in/log.jsonl",
              "{\"step\": 1, \"tokens\": 2, \"losses\": {\"loss\": 3}}\n{\"step\": 2");
  const auto result = run_kvcast("report '" + path("in") + "' --out '" + path("out") + "'");
  EXPECT_EQ(result.exit_code, 0) << result.error;
  EXPECT_THAT(result.error, AllOf(HasSubstr("other.json"), HasSubstr("cut short")));
  EXPECT_THAT(result.error, Not(HasSubstr("config.json")));
  for (const char* file :
       {"out/index.html", "out/report.md", "out/tables/quality-triviaqa-base-60m.csv",
        "out/figures/pareto-triviaqa-base-60m.svg", "out/figures/loss-training.svg"}) {
    EXPECT_TRUE(std::filesystem::exists(path(file))) << file;
  }
}

TEST_F(Commands, ReportOfWrongInputIsOneLineAndWritesNothing) {
  root_.write("bad.json", "{\"results\": [{\"task\": 5}]}");
  root_.write("broken.json", "{");
  root_.write("other.json", "{}");
  std::filesystem::create_directories(path("empty"));
  for (const char* file : {"bad.json", "broken.json", "other.json", "missing.json", "empty"}) {
    const auto result = run_kvcast("report '" + path(file) + "' --out '" + path("out") + "'");
    EXPECT_EQ(result.exit_code, 1) << file;
    EXPECT_EQ(result.out, "") << file;
    EXPECT_THAT(result.error, AllOf(HasSubstr(file), testing::EndsWith("\n"))) << file;
    EXPECT_EQ(std::ranges::count(result.error, '\n'), 1) << result.error;
    EXPECT_FALSE(std::filesystem::exists(path("out"))) << file;
  }
  EXPECT_EQ(run_kvcast("report").exit_code, 2);
  EXPECT_EQ(run_kvcast("report x").exit_code, 2);
}

TEST_F(Commands, AnalyzeWritesFilesThatReportReads) {
  const std::string bundle = std::string(KVCAST_SOURCE_DIR) + "/models/first-light";
  std::string text;
  for (int i = 0; i < 60; ++i)
    text += "The city of Rome was founded in year " + std::to_string(i) + ".\n";
  root_.write("text.txt", text);
  const auto analysis = run_kvcast("analyze '" + bundle + "' --data '" + path("text.txt") +
                                   "' --tokens 64 --limit 3 --out '" + path("analysis") + "'");
  ASSERT_EQ(analysis.exit_code, 0) << analysis.error;
  EXPECT_THAT(analysis.out, AllOf(HasSubstr("| layer"), HasSubstr("3 windows of 64 tokens")));
  EXPECT_TRUE(std::filesystem::exists(path("analysis/l1-heat-map.svg")));
  const auto report =
      run_kvcast("report '" + path("analysis/analysis.json") + "' --out '" + path("out") + "'");
  EXPECT_EQ(report.exit_code, 0) << report.error;
}

TEST_F(Commands, AnalyzeOfWrongInputIsOneLine) {
  const std::string golden = std::string(KVCAST_GOLDEN_DIR) + "/openelm-tiny-kvp-c";
  root_.write("short.txt", "too short\n");
  const std::string shipped = std::string(KVCAST_SOURCE_DIR) + "/models/first-light";
  const auto expect_error = [&](const std::string& arguments, const char* part) {
    const auto result = run_kvcast("analyze " + arguments);
    EXPECT_EQ(result.exit_code, 1) << arguments;
    EXPECT_THAT(result.error, HasSubstr(part));
    EXPECT_EQ(std::ranges::count(result.error, '\n'), 1) << result.error;
  };
  expect_error("'" + golden + "/base' --data '" + path("short.txt") + "'", "plain model");
  expect_error("'" + golden + "' --tokens 16 --data '" + path("short.txt") + "'", "tokenizer");
  expect_error("'" + shipped + "' --data '" + path("short.txt") + "'", "short.txt");
  expect_error("'" + shipped + "' --data '" + path("none.txt") + "'", "none.txt");
  expect_error("'" + shipped + "' --tokens 100000 --data '" + path("short.txt") + "'", "--tokens");
  EXPECT_EQ(run_kvcast("analyze").exit_code, 2);
}

}  // namespace
}  // namespace kvcast::report
