"""kvcast-report: one page of tables and figures from results and training logs."""

import argparse
import sys
from pathlib import Path

import jinja2
from markupsafe import Markup

from . import figures
from .questions import make_questions
from .results import ResultError, read_results


def _text_class(table, column):
    """Columns whose cells are all numbers, or none, are aligned to the right."""
    cells = table.rows[column].astype(str).str.replace(r"[-+0-9.,–·±%\[\] ]|never", "", regex=True)
    return Markup(' class="text"') if cells.any() else ""


def write_page(results, out, title, made_by, png=False):
    """Writes index.html, tables/*.csv and figures/*.svg (and *.png) below the directory `out`."""
    with figures.style():
        questions = make_questions(results)
        for folder in ("tables", "figures"):
            (out / folder).mkdir(parents=True, exist_ok=True)
        for view in (view for question in questions for view in question.views):
            for table in view.tables:
                table.rows.to_csv(out / "tables" / f"{table.id}.csv", index=False)
            for name, figure in view.figures.items():
                for suffix in (".svg", ".png") if png else (".svg",):
                    figures.save(figure, out / "figures" / (name + suffix))
    environment = jinja2.Environment(loader=jinja2.PackageLoader(__package__, "."), autoescape=True, trim_blocks=True,
                                     undefined=jinja2.StrictUndefined)
    page = environment.get_template("page.html.j2").render(title=title, made_by=made_by, questions=questions,
                                                           notes=results.notes, text_class=_text_class)
    (out / "index.html").write_text(page, encoding="utf-8")


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="kvcast-report", description=__doc__.partition(": ")[2])
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH",
                        help="result files (.json) and training logs (.jsonl), or directories of them")
    parser.add_argument("--out", required=True, type=Path, help="directory to write: index.html, tables, figures")
    parser.add_argument("--title", default="KV Prediction: results")
    parser.add_argument("--png", action="store_true", help="figures as PNG too")
    options = parser.parse_args(arguments)
    try:
        results = read_results(*options.paths)
        if not results:
            raise ResultError(f"{options.paths[0]}: no results of kvcast eval, bench or analyze and no training logs")
        for note in results.notes:
            print(f"kvcast-report: note: {note}", file=sys.stderr)
        write_page(results, options.out, options.title, "Made by kvcast-report from " + ", ".join(map(str, options.paths)) + ".",
                   options.png)
    except (ResultError, OSError) as error:
        print(f"kvcast-report: {error}", file=sys.stderr)
        return 1
    print(options.out / "index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
