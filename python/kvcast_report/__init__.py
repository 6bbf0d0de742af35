"""Tables, figures and one page from what kvcast measured.

`read_results()` gives result files and training logs as pandas frames; the program `kvcast-report`
(`python3 -m kvcast_report`) makes a page of them. Needs pandas, matplotlib and jinja2, not kvcast itself.
"""

try:
    from .results import ResultError, Results, read_results
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(f"{missing.name} is missing: pip install 'kvcast[report]', or on Debian python3-matplotlib, python3-pandas and "
                              "python3-jinja2") from None

__all__ = ["ResultError", "Results", "read_results"]
