#include "report/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/utf8.h"

namespace kvcast::report {
namespace {

struct InkColors {
  std::string_view css_class, light;
};

InkColors ink_colors(Ink ink) {
  switch (ink) {
    case Ink::kText:
      return {"kv-text", "#1c1f24"};
    case Ink::kMuted:
      return {"kv-muted", "#535b66"};
    case Ink::kAxis:
      return {"kv-axis", "#535b66"};
    case Ink::kGrid:
      return {"kv-grid", "#e3e6ea"};
    case Ink::kBackground:
      break;
  }
  return {"kv-background", "#ffffff"};
}

/// Attributes give the light colours; this is all that a dark screen changes.
constexpr std::string_view kDarkStyle =
    "<style>@media (prefers-color-scheme: dark) {"
    " .kv-background { fill: #15181d; } .kv-text { fill: #e8eaed; } .kv-muted { fill: #a9b1bc; }"
    " .kv-halo { stroke: #15181d; } .kv-axis { stroke: #a9b1bc; } .kv-grid { stroke: #2c323b; }"
    " [stroke=\"#000000\"] { stroke: #d7dbe0; } [fill=\"#000000\"] { fill: #d7dbe0; }"
    " [stroke=\"#0072B2\"] { stroke: #3b9be0; } [fill=\"#0072B2\"] { fill: #3b9be0; } "
    "}</style>\n";

constexpr std::string_view kFont =
    "Helvetica Neue, Helvetica, Arial, Liberation Sans, DejaVu Sans, sans-serif";

std::string stroke_attributes(const StrokeStyle& style) {
  const InkColors ink = ink_colors(style.ink);
  std::string text = style.color.empty()
                         ? fmt::format(R"( class="{}" stroke="{}")", ink.css_class, ink.light)
                         : fmt::format(R"( stroke="{}")", style.color);
  text += fmt::format(R"( stroke-width="{}")", svg_number(style.width));
  if (style.opacity < 1) text += fmt::format(R"( stroke-opacity="{}")", svg_number(style.opacity));
  if (!style.dashes.empty()) text += fmt::format(R"( stroke-dasharray="{}")", style.dashes);
  return text;
}

/// Advance width in thousandths of the font size, after Helvetica's.
int advance(char c) {
  if (std::string_view("ijlI'|.,:;!").find(c) != std::string_view::npos) return 260;
  if (std::string_view(" frt()[]/-").find(c) != std::string_view::npos) return 320;
  if (std::string_view("mMW@%").find(c) != std::string_view::npos) return 870;
  if (std::string_view("wGOQCD").find(c) != std::string_view::npos) return 740;
  if (c >= 'A' && c <= 'Z') return 670;
  return 556;
}

}  // namespace

std::string xml_escape(std::string_view text) {
  const std::string valid = replace_invalid_utf8(text);
  std::string out;
  for (size_t at = 0; at < valid.size(); ++at) {
    const char c = valid[at];
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += static_cast<unsigned char>(c) < 0x20 || c == 0x7F ? ' ' : c;
    }
  }
  // U+FFFE and U+FFFF are characters, but not in XML.
  for (const std::string_view bad : {"\xEF\xBF\xBE", "\xEF\xBF\xBF"}) {
    for (size_t at; (at = out.find(bad)) != std::string::npos;) {
      out.replace(at, bad.size(), kReplacementCharacter);
    }
  }
  return out;
}

std::string svg_number(double value) {
  if (!std::isfinite(value)) return "0";
  std::string text = fmt::format("{:.2f}", value);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
  return text == "-0" ? "0" : text;
}

double text_width(std::string_view text, double size) {
  int total = 0;
  for (const char c : text) {
    if ((static_cast<unsigned char>(c) & 0xC0) != 0x80) total += advance(c);
  }
  constexpr double kWiderFonts = 1.1;  // DejaVu, where there is no Helvetica or Arial
  return kWiderFonts * total * size / 1000;
}

std::string_view series_color(int index) {
  static constexpr std::array<std::string_view, kSeriesColors> kColors = {
      "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"};
  return kColors[static_cast<size_t>(index % kSeriesColors)];
}

std::string sequential_color(double t) {
  // Nine stops of viridis (van der Walt and Smith, public domain), linear in between.
  static constexpr double kStops[9][3] = {{68, 1, 84},    {71, 45, 123},  {59, 82, 139},
                                          {44, 114, 142}, {33, 145, 140}, {40, 174, 128},
                                          {94, 201, 98},  {173, 220, 48}, {253, 231, 37}};
  const double at = std::isfinite(t) ? std::clamp(t, 0.0, 1.0) * 8 : 0;
  const int low = std::min(static_cast<int>(at), 7);
  const double share = at - low;
  const auto mix = [&](int channel) {
    return static_cast<int>(
        std::lround(kStops[low][channel] * (1 - share) + kStops[low + 1][channel] * share));
  };
  return fmt::format("#{:02X}{:02X}{:02X}", mix(0), mix(1), mix(2));
}

Svg::Svg(double width, double height, std::string_view title) {
  const std::string w = svg_number(width), h = svg_number(height), escaped = xml_escape(title);
  head_ = fmt::format(
      R"(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {0} {1}" width="{0}" height="{1}" )"
      R"(role="img" aria-label="{2}" font-family="{3}">)"
      "\n<title>{2}</title>\n",
      w, h, escaped, kFont);
  head_ += kDarkStyle;
  head_ += fmt::format(R"(<rect class="kv-background" width="{}" height="{}" fill="#ffffff"/>)"
                       "\n",
                       w, h);
}

void Svg::line(double x1, double y1, double x2, double y2, const StrokeStyle& style) {
  body_ += fmt::format(R"(<line x1="{}" y1="{}" x2="{}" y2="{}"{}/>)"
                       "\n",
                       svg_number(x1), svg_number(y1), svg_number(x2), svg_number(y2),
                       stroke_attributes(style));
}

void Svg::stroke_path(std::string_view data, const StrokeStyle& style) {
  body_ += fmt::format(R"(<path d="{}" fill="none" stroke-linejoin="round"{}/>)"
                       "\n",
                       data, stroke_attributes(style));
}

void Svg::fill_path(std::string_view data, std::string_view color, double opacity, bool hollow) {
  std::string attributes =
      hollow ? fmt::format(R"(class="kv-background" fill="#ffffff" stroke="{}" stroke-width="1.6")",
                           color)
             : fmt::format(R"(fill="{}")", color);
  if (opacity < 1) attributes += fmt::format(R"( fill-opacity="{}")", svg_number(opacity));
  body_ += fmt::format(R"(<path d="{}" {}/>)"
                       "\n",
                       data, attributes);
}

void Svg::text(double x, double y, std::string_view text, const TextStyle& style) {
  const InkColors ink = ink_colors(style.ink);
  std::string attributes = fmt::format(R"(x="{}" y="{}" font-size="{}")", svg_number(x),
                                       svg_number(y), svg_number(style.size));
  if (style.anchor != "start") attributes += fmt::format(R"( text-anchor="{}")", style.anchor);
  if (style.bold) attributes += R"( font-weight="600")";
  if (style.rotate_degrees != 0) {
    attributes += fmt::format(R"-( transform="rotate({} {} {})")-",
                              svg_number(style.rotate_degrees), svg_number(x), svg_number(y));
  }
  const std::string escaped = xml_escape(text);
  if (style.halo) {  // drawn first, since not every viewer knows paint-order
    body_ +=
        fmt::format(R"(<text {} class="kv-background kv-halo" fill="#ffffff" stroke="#ffffff" )"
                    R"(stroke-width="3" stroke-linejoin="round" aria-hidden="true">{}</text>)"
                    "\n",
                    attributes, escaped);
  }
  body_ += fmt::format(R"(<text {} class="{}" fill="{}">{}</text>)"
                       "\n",
                       attributes, ink.css_class, ink.light, escaped);
}

void Svg::begin_clip(std::string_view id, double x, double y, double width, double height) {
  body_ += fmt::format(
      R"(<clipPath id="{0}"><rect x="{1}" y="{2}" width="{3}" height="{4}"/></clipPath>)"
      "\n"
      R"-(<g clip-path="url(#{0})">)-"
      "\n",
      xml_escape(id), svg_number(x), svg_number(y), svg_number(width), svg_number(height));
}

void Svg::begin_group(double x, double y) {
  body_ += fmt::format(R"-(<g transform="translate({} {})">)-"
                       "\n",
                       svg_number(x), svg_number(y));
}

std::string Svg::finish() const { return head_ + body_ + "</svg>\n"; }

}  // namespace kvcast::report
