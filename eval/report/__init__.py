"""Results on one page that opens from disk, without network: scoreboard, groups and every answer."""

from eval.report.page import write_page

__all__ = ["write_page"]
