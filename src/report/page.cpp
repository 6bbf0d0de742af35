#include "report/page.h"

#include <fmt/format.h>

#include "base/macros.h"
#include "base/mapped_file.h"
#include "report/figure_files.h"
#include "report/svg.h"

namespace kvcast::report {
namespace {

constexpr std::string_view kStyle = R"(
:root { color-scheme: light dark; --paper: #ffffff; --page: #f4f5f7; --ink: #1c1f24; --muted: #535b66; --rule: #dde1e6; --link: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --paper: #15181d; --page: #0e1013; --ink: #e8eaed; --muted: #a9b1bc; --rule: #2c323b; --link: #56b4e9; } }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 Helvetica Neue, Helvetica, Arial, Liberation Sans, DejaVu Sans, sans-serif; }
main { max-width: 1060px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 4px; } h2 { font-size: 1.35rem; margin: 56px 0 12px; padding-top: 20px; border-top: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 28px 0 8px; } p { max-width: 76ch; margin: 10px 0; } .muted, figcaption, .note { color: var(--muted); font-size: .875rem; }
a { color: var(--link); } nav ul { padding-left: 1.2em; margin: 12px 0; columns: 2; column-gap: 40px; } nav li { break-inside: avoid; }
figure { margin: 24px 0; background: var(--paper); border: 1px solid var(--rule); border-radius: 8px; overflow: hidden; }
figure > div { overflow-x: auto; } figure svg { display: block; margin: 0 auto; max-width: 100%; min-width: 620px; height: auto; } figcaption { padding: 10px 16px 14px; border-top: 1px solid var(--rule); }
.table { overflow-x: auto; background: var(--paper); border: 1px solid var(--rule); border-radius: 8px; } table { border-collapse: collapse; font-size: .85rem; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 12px; text-align: left; white-space: nowrap; border-bottom: 1px solid var(--rule); } tbody tr:last-child td { border-bottom: 0; } th { font-weight: 600; color: var(--muted); vertical-align: bottom; } th.n, td.n { text-align: right; }
@media (max-width: 640px) { nav ul { columns: 1; } figure svg { min-width: 520px; } } @media print { body { background: none; } figure, .table { break-inside: avoid; } }
)";

template <typename Paragraph>
void for_paragraphs(std::string_view text, Paragraph paragraph) {
  while (!text.empty()) {
    const auto end = text.find("\n\n");
    paragraph(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 2);
  }
}

std::string html_section(const Section& section, const std::string& id) {
  std::string html =
      fmt::format("<section id=\"{}\">\n<h2>{}</h2>\n", id, xml_escape(section.title));
  for_paragraphs(section.text, [&](std::string_view paragraph) {
    html += fmt::format("<p>{}</p>\n", xml_escape(paragraph));
  });
  for (const Figure& figure : section.figures) {
    html += fmt::format("<figure>\n<div>{}</div>\n<figcaption>{}</figcaption>\n</figure>\n",
                        to_svg(figure), xml_escape(figure.caption));
  }
  for (const NamedTable& named : section.tables) {
    html += fmt::format("<h3>{}</h3>\n<div class=\"table\">\n{}</div>\n", xml_escape(named.title),
                        named.table.to_html());
    if (!named.note.empty())
      html += fmt::format("<p class=\"note\">{}</p>\n", xml_escape(named.note));
  }
  return html + "</section>\n";
}

std::string section_id(const Section& section, size_t index) {
  return fmt::format("{}-{}", slug(section.title), index + 1);
}

}  // namespace

std::string to_html(const Report& report) {
  const std::string title = xml_escape(report.title);
  std::string html = fmt::format(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
      "<title>{0}</title>\n<style>{1}</style>\n</head>\n<body>\n<main>\n<h1>{0}</h1>\n"
      "<p class=\"muted\">{2}</p>\n<nav>\n<ul>\n",
      title, kStyle, xml_escape(report.made_by));
  for (size_t i = 0; i < report.sections.size(); ++i) {
    html += fmt::format("<li><a href=\"#{}\">{}</a></li>\n", section_id(report.sections[i], i),
                        xml_escape(report.sections[i].title));
  }
  html += "</ul>\n</nav>\n";
  for (size_t i = 0; i < report.sections.size(); ++i) {
    html += html_section(report.sections[i], section_id(report.sections[i], i));
  }
  if (!report.notes.empty()) {
    html += "<section>\n<h2>Notes on the inputs</h2>\n<ul class=\"muted\">\n";
    for (const std::string& note : report.notes)
      html += fmt::format("<li>{}</li>\n", xml_escape(note));
    html += "</ul>\n</section>\n";
  }
  return html + "</main>\n</body>\n</html>\n";
}

std::string to_markdown(const Report& report) {
  std::string text = fmt::format("# {}\n\n{}\n", report.title, report.made_by);
  for (const Section& section : report.sections) {
    text += fmt::format("\n## {}\n", section.title);
    for_paragraphs(section.text,
                   [&](std::string_view paragraph) { text += fmt::format("\n{}\n", paragraph); });
    for (const Figure& figure : section.figures) {
      text += fmt::format("\n![{}](figures/{}.svg)\n\n{}\n", figure.id, figure.id, figure.caption);
    }
    for (const NamedTable& named : section.tables) {
      text += fmt::format("\n### {}\n\n{}", named.title, named.table.to_markdown());
      if (!named.note.empty()) text += fmt::format("\n{}\n", named.note);
    }
  }
  if (!report.notes.empty()) text += "\n## Notes on the inputs\n\n";
  for (const std::string& note : report.notes) text += fmt::format("- {}\n", note);
  return text;
}

Status write_report(const Report& report, const std::filesystem::path& directory, bool png) {
  KVCAST_CHECK(make_directory(directory / "tables"));
  for (const Section& section : report.sections) {
    KVCAST_CHECK(write_svg_files(section.figures, directory / "figures"));
    if (png) KVCAST_CHECK(write_png_files(section.figures, directory / "figures"));
    for (const NamedTable& named : section.tables) {
      KVCAST_CHECK(
          write_file_atomically(directory / "tables" / (named.id + ".csv"), named.table.to_csv()));
    }
  }
  KVCAST_CHECK(write_file_atomically(directory / "report.md", to_markdown(report)));
  return write_file_atomically(directory / "index.html", to_html(report));
}

}  // namespace kvcast::report
