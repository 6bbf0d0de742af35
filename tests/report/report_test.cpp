// From result files to tables, figures and the page.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "report/page.h"
#include "report/sample_files.h"
#include "report/svg_check.h"

namespace kvcast::report {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

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

TEST(Pareto, AMethodLooksTheSameInBothPanels) {
  auto files = family();
  files[0]["results"][1].erase("ttft_ms");  // not timed, so it is in one panel only
  const Results results = parsed(files);
  const Figure figure = pareto_figure(compare(results.evals)[0]);
  ASSERT_EQ(figure.panels.size(), 2);
  const auto& flops = std::get<Chart>(figure.panels[0]).series;
  const auto& ttft = std::get<Chart>(figure.panels[1]).series;
  EXPECT_GT(flops.size(), ttft.size());
  for (const Series& series : ttft) {
    const auto same = std::ranges::find(flops, series.name, &Series::name);
    ASSERT_NE(same, flops.end()) << series.name;
    EXPECT_EQ(series.style, same->style) << series.name;
  }
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
  const Json peers = {{"results", {{{"engine", "llama.cpp"}, {"ttft_ms", 3.5}}}}};
  for (const Json& other :
       {Json{{"bundle", "x"}}, Json{{"results", {1, 2}}}, Json{{"runs", "x"}}, peers,
        Json{{"runs", {peers}}}, Json{{"kind", "something"}, {"results", {{{"task", "x"}}}}}}) {
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

}  // namespace
}  // namespace kvcast::report
