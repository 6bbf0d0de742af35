// Figures: well-formed SVG whose parts are where the numbers say.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "report/axis.h"
#include "report/chart.h"
#include "report/svg.h"
#include "report/svg_check.h"

namespace kvcast::report {
namespace {

std::vector<std::string> labels(const std::vector<Tick>& ticks) {
  std::vector<std::string> texts;
  for (const Tick& tick : ticks) texts.push_back(tick.label);
  return texts;
}

XmlDocument parsed(const Figure& figure) {
  const std::string svg = to_svg(figure);
  auto document = XmlDocument::parse(svg);
  EXPECT_TRUE(document) << svg;
  return document ? *document : XmlDocument();
}

Chart line_chart(std::vector<Point> points) {
  Chart chart{.title = "Loss", .x = {.label = "tokens (millions)"}, .y = {.label = "loss (nats)"}};
  chart.series.push_back({.name = "run", .points = std::move(points)});
  return chart;
}

using testing::ElementsAre;

TEST(XmlCheck, RefusesWhatIsNotWellFormed) {  // else the tests below mean nothing
  EXPECT_TRUE(XmlDocument::parse("<a b=\"1\"><c/>text</a>\n"));
  for (const char* bad : {"", "<a>", "<a></b>", "<a b=1/>", "<a b=\"1\"c=\"2\"/>", "<a>&</a>",
                          "<a b=\"<\"/>", "<a/><b/>", "<a b=\"1\" b=\"2\"/>"}) {
    EXPECT_FALSE(XmlDocument::parse(bad)) << bad;
  }
}

TEST(Ticks, AreRoundNumbersWithinTheRange) {
  EXPECT_THAT(labels(linear_ticks(0, 10, 5)), ElementsAre("0", "2", "4", "6", "8", "10"));
  EXPECT_THAT(labels(linear_ticks(0.13, 0.39, 5)),
              ElementsAre("0.15", "0.20", "0.25", "0.30", "0.35"));
  EXPECT_THAT(labels(linear_ticks(-1, 1, 4)), ElementsAre("-1.0", "-0.5", "0.0", "0.5", "1.0"));
  EXPECT_THAT(labels(linear_ticks(0, 4000, 4)),
              ElementsAre("0", "1,000", "2,000", "3,000", "4,000"));
}

TEST(Ticks, OfALogarithmicAxisStandAtOneTwoAndFive) {
  EXPECT_THAT(labels(log_ticks(90, 3000)), ElementsAre("100", "200", "500", "1,000", "2,000"));
  EXPECT_THAT(labels(log_ticks(1, 10000)), ElementsAre("1", "10", "100", "1,000", "10,000"));
}

TEST(Ticks, OfAnEmptyRangeDoNotLoopForever) {
  EXPECT_EQ(linear_ticks(3, 3, 5).size(), 1);
  EXPECT_EQ(linear_ticks(NAN, 3, 5).size(), 1);
  EXPECT_LE(linear_ticks(1e15, 1e15 + 1, 5).size(), 10);
}

TEST(Scale, PlacesValuesBetweenItsEnds) {
  const Scale linear({.low = 10, .high = 20}, {}, 5);
  EXPECT_DOUBLE_EQ(linear.place(10), 0);
  EXPECT_DOUBLE_EQ(linear.place(15), 0.5);
  const Scale log({.log = true, .low = 1, .high = 100}, {}, 5);
  EXPECT_DOUBLE_EQ(log.place(10), 0.5);
  EXPECT_TRUE(std::isnan(log.place(0)));
  EXPECT_TRUE(std::isnan(linear.place(NAN)));
}

TEST(Scale, CoversTheDataAndPassesOverWhatIsNotFinite) {
  const Scale scale({}, {3, NAN, 7, INFINITY}, 5);
  EXPECT_LT(scale.low(), 3);
  EXPECT_GT(scale.high(), 7);
  EXPECT_LT(scale.high(), 8);
  const Scale from_zero({.from_zero = true}, {3, 7}, 5);
  EXPECT_EQ(from_zero.low(), 0);
  const Scale nothing({.log = true}, {NAN, -1}, 5);
  EXPECT_GT(nothing.high(), nothing.low());
}

TEST(Svg, EscapesWhatXmlReservesAndReplacesWhatItForbids) {
  EXPECT_EQ(xml_escape("a<b & \"c\" 'd'>"), "a&lt;b &amp; &quot;c&quot; &#39;d&#39;&gt;");
  EXPECT_EQ(xml_escape(std::string_view("a\0b\x1b", 4)), "a b ");
  EXPECT_EQ(xml_escape("\xff×"), "\xEF\xBF\xBD×");
  EXPECT_EQ(xml_escape("\xEF\xBF\xBE"), "\xEF\xBF\xBD");
}

TEST(Svg, NumbersAreShort) {
  EXPECT_EQ(svg_number(1.0), "1");
  EXPECT_EQ(svg_number(0.5), "0.5");
  EXPECT_EQ(svg_number(-0.001), "0");
  EXPECT_EQ(svg_number(1.239), "1.24");
  EXPECT_EQ(svg_number(NAN), "0");
}

TEST(Svg, SequentialColorsGoFromDarkToLight) {
  EXPECT_EQ(sequential_color(0), "#440154");
  EXPECT_EQ(sequential_color(1), "#FDE725");
  EXPECT_EQ(sequential_color(2), "#FDE725");
  EXPECT_EQ(sequential_color(NAN), "#440154");
}

TEST(ChartFigure, IsWellFormedAndShowsTitleAxesAndTicks) {
  const auto document = parsed({"loss", "Loss of a run.", {line_chart({{1, 4}, {2, 3}, {3, 2}})}});
  for (const char* text :
       {"Loss of a run.", "Loss", "tokens (millions)", "loss (nats)", "2.0", "3.0"}) {
    EXPECT_TRUE(document.shows(text)) << text;
  }
  EXPECT_EQ(document.elements().front().attributes.at("aria-label"), "Loss of a run.");
}

TEST(ChartFigure, HostileNamesStayText) {
  Chart chart = line_chart({{1, 1, NAN, NAN, NAN, NAN, "<script>"}, {2, 2}});
  chart.title = "</text><script>alert(1)</script>";
  const auto document = parsed({"x\"><script>", "a & b", {chart}});
  EXPECT_TRUE(document.named("script").empty());
}

TEST(ChartFigure, DrawsOneMarkerForEachFinitePointAndBreaksTheLineAtAGap) {
  const auto document = parsed({"id", "c", {line_chart({{1, 4}, {2, NAN}, {3, 2}, {4, 3}})}});
  std::string line;
  int markers = 0;
  for (const XmlElement* path : document.named("path")) {
    if (path->attributes.at("fill") == "none") {
      line = path->attributes.at("d");
    } else {
      ++markers;
    }
  }
  EXPECT_EQ(markers, 3);
  EXPECT_EQ(std::ranges::count(line, 'M'), 2) << line;
  EXPECT_EQ(std::ranges::count(line, 'L'), 1) << line;
}

TEST(ChartFigure, IntervalsAreErrorBarsOrABand) {
  Chart chart = line_chart({{1, 4, 3, 5}, {2, 3, 2, 4}});
  const auto count_lines = [](const Figure& figure) {
    const auto document = parsed(figure);
    return document.named("line").size();
  };
  Chart plain = line_chart({{1, 4}, {2, 3}});
  plain.y.low = chart.y.low = 0;  // the same axes, so that the same ticks
  plain.y.high = chart.y.high = 6;
  EXPECT_EQ(count_lines({"a", "", {chart}}), count_lines({"a", "", {plain}}) + 6);
  chart.series[0].band = true;
  EXPECT_EQ(count_lines({"a", "", {chart}}), count_lines({"a", "", {plain}}));
  EXPECT_THAT(to_svg({"a", "", {chart}}), testing::HasSubstr("fill-opacity"));
}

TEST(ChartFigure, PointsStandWhereTheAxesSay) {
  Chart chart = line_chart({{0, 0}, {10, 10}, {5, 5}});
  chart.x.low = chart.y.low = 0;
  chart.x.high = chart.y.high = 10;
  chart.series[0].markers = false;
  const auto document = parsed({"id", "c", {chart}});
  for (const XmlElement* path : document.named("path")) {
    double x[3], y[3];
    ASSERT_EQ(std::sscanf(path->attributes.at("d").c_str(), "M%lf %lfL%lf %lfL%lf %lf", &x[0],
                          &y[0], &x[1], &y[1], &x[2], &y[2]),
              6);
    EXPECT_NEAR(x[2], (x[0] + x[1]) / 2, 0.02);
    EXPECT_NEAR(y[2], (y[0] + y[1]) / 2, 0.02);
    EXPECT_GT(x[1], x[0]);
    EXPECT_LT(y[1], y[0]);  // up
  }
}

TEST(ChartFigure, SeriesDifferInColourAndInShape) {
  Chart chart = line_chart({{1, 1}});
  chart.series.push_back({.name = "other", .points = {{2, 2}}, .style = 1});
  std::vector<std::string> fills, shapes;
  const auto document = parsed({"id", "c", {chart}});
  for (const XmlElement* path : document.named("path")) {
    if (path->attributes.at("fill") == "none") continue;
    fills.push_back(path->attributes.at("fill"));
    shapes.push_back(path->attributes.at("d").find('a') == std::string::npos ? "square" : "circle");
  }
  // legend samples, then points
  EXPECT_THAT(fills, ElementsAre("#0072B2", "#D55E00", "#0072B2", "#D55E00"));
  EXPECT_THAT(shapes, ElementsAre("circle", "square", "circle", "square"));
}

TEST(ChartFigure, LabelsOfCrowdedPointsDoNotOverlap) {
  Chart chart{.title = "", .x = {.label = "x"}, .y = {.label = "y"}};
  Series series{.name = "s", .line = false};
  for (int i = 0; i < 8; ++i) {
    series.points.push_back(
        {.x = 1 + 0.01 * i, .y = 1 + 0.01 * (i % 3), .label = "label " + std::to_string(i)});
  }
  series.points.push_back({.x = 2, .y = 2});
  chart.series = {series};
  struct Place {
    double left, bottom;
  };
  std::vector<Place> places;
  const auto document = parsed({"id", "c", {chart}});
  for (const XmlElement* text : document.named("text")) {
    if (text->attributes.contains("aria-hidden") || !text->text.starts_with("label")) continue;
    places.push_back({std::stod(text->attributes.at("x")), std::stod(text->attributes.at("y"))});
  }
  ASSERT_EQ(places.size(), 8);
  const double width = text_width("label 0", 11);
  for (size_t i = 0; i < places.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      EXPECT_TRUE(std::abs(places[i].left - places[j].left) > width - 0.1 ||
                  std::abs(places[i].bottom - places[j].bottom) > 12.9)
          << i << " and " << j;
    }
  }
}

TEST(ChartFigure, GrowsWithItsLegend) {
  const auto height = [](size_t series) {
    Chart chart = line_chart({{1, 4}, {2, 3}});
    for (size_t i = 0; i < series; ++i) chart.series.push_back({.name = "a rather long name"});
    const auto document = parsed({"id", "c", {chart}});
    return std::stod(document.elements().front().attributes.at("height"));
  };
  EXPECT_EQ(height(0), height(2));
  EXPECT_GT(height(12), height(2) + 30);
}

TEST(ChartFigure, WithoutAnyPointIsStillAFigure) {
  Chart chart = line_chart({});
  chart.y.log = true;
  EXPECT_TRUE(parsed({"id", "c", {chart}}).shows("loss (nats)"));
}

TEST(HeatMapFigure, HasACellForEachFiniteValue) {
  const HeatMap map{.title = "Keys",
                    .x_label = "position",
                    .y_label = "layer",
                    .value_label = "error",
                    .column_edges = {0, 4, 8, 12},
                    .rows = {"0", "1"},
                    .values = {{1, 2, 3}, {4, NAN, 6}}};
  const auto document = parsed({"id", "c", {map}});
  size_t cells = 0;
  std::vector<std::string> colors;
  for (const XmlElement* path : document.named("path")) {
    cells += static_cast<size_t>(std::ranges::count(path->attributes.at("d"), 'M'));
    colors.push_back(path->attributes.at("fill"));
  }
  EXPECT_EQ(cells, 5 + 64);  // and the colour bar
  EXPECT_EQ(colors.front(), sequential_color(0));
  EXPECT_TRUE(document.shows("position"));
  EXPECT_TRUE(document.shows("error"));
}

TEST(FigurePanels, StandSideBySide) {
  const Chart chart = line_chart({{1, 4}, {2, 3}});
  const auto one = parsed({"id", "c", {chart}}), two = parsed({"id", "c", {chart, chart}});
  const auto width = [](const XmlDocument& document) {
    return std::stod(document.elements().front().attributes.at("width"));
  };
  EXPECT_GT(width(two), width(one));
  const auto clips = two.named("clipPath");
  ASSERT_EQ(clips.size(), 2);
  EXPECT_NE(clips[0]->attributes.at("id"), clips[1]->attributes.at("id"));
}

}  // namespace
}  // namespace kvcast::report
