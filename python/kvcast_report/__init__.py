"""Tables, figures and one page from what kvcast measured.

`read_results()` gives result files and training logs as pandas frames; the program `kvcast-report`
(`python3 -m kvcast_report`) makes a page of them. Needs pandas, matplotlib and jinja2, not kvcast itself.
"""

from .results import ResultError, Results, read_results

__all__ = ["ResultError", "Results", "read_results"]
