"""``report.html``: a run on one page that opens from disk, without network."""

from mm_cpgd.report.page import write_report

__all__ = ["write_report"]
