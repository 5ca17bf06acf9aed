"""HTML page of results, self-contained and offline: scoreboard, groups and every response."""

from eval.report.page import write_page

__all__ = ["write_page"]
