// SVG elements as text. Colours are roles, so that one file is legible on paper (light, what
// converters that know no media queries see) and on a dark screen.
#pragma once

#include <string>
#include <string_view>

namespace kvcast::report {

/// Text with &, <, > and quotes escaped, and control characters and bytes that are no UTF-8
/// replaced: what XML and HTML accept as text or in an attribute.
std::string xml_escape(std::string_view text);

/// At most two decimals, no trailing zeros, never "-0"; what coordinates need.
std::string svg_number(double value);

/// Width in pixels that a sans-serif font of `size` pixels needs for `text`, about: for layout.
double text_width(std::string_view text, double size);

/// Roles of colour. Series colours are those of Okabe and Ito, which people of every kind of colour
/// vision can tell apart; yellow is left out since it is too pale for lines on white.
enum class Ink {
  kText,        ///< titles, labels
  kMuted,       ///< tick labels, notes
  kAxis,        ///< axis lines, ticks
  kGrid,        ///< grid lines
  kBackground,  ///< behind everything, and around labels
};
inline constexpr int kSeriesColors = 7;
/// Colour of the series with this index; indices go round.
std::string_view series_color(int index);
/// A perceptually even scale from dark blue to yellow (viridis), `t` in [0, 1].
std::string sequential_color(double t);

struct TextStyle {
  double size = 12;
  std::string_view anchor = "start";  ///< start, middle, end
  Ink ink = Ink::kText;
  bool bold = false;
  double rotate_degrees = 0;  ///< around its own position
  bool halo = false;          ///< a rim in the background's colour, for labels over lines
};

struct StrokeStyle {
  std::string_view color;  ///< "#0072B2"; empty: `ink`
  Ink ink = Ink::kAxis;
  double width = 1;
  double opacity = 1;
  std::string_view dashes = {};  ///< as in stroke-dasharray
};

/// Collects elements; `finish` gives the whole file.
class Svg {
 public:
  /// `title` is what a screen reader says.
  Svg(double width, double height, std::string_view title);

  void line(double x1, double y1, double x2, double y2, const StrokeStyle& style);
  /// An open path; `data` as in the attribute d.
  void stroke_path(std::string_view data, const StrokeStyle& style);
  /// `hollow`: the outline in `color`, inside the background's.
  void fill_path(std::string_view data, std::string_view color, double opacity = 1,
                 bool hollow = false);
  void text(double x, double y, std::string_view text, const TextStyle& style);
  /// What is drawn until end_clip shows only inside the rectangle. `id` must be unique on the page.
  void begin_clip(std::string_view id, double x, double y, double width, double height);
  void end_clip() { body_ += "</g>\n"; }
  void begin_group(double x, double y);
  void end_group() { body_ += "</g>\n"; }

  [[nodiscard]] std::string finish() const;

 private:
  std::string head_, body_;
};

}  // namespace kvcast::report
