"""Processes of one run: they start together, watch one another, and end together."""

from mm_cpgd.training.processes.nodes import check_rows, check_run_folder
from mm_cpgd.training.processes.start import Limit, agree, fail_start, is_launched, start_together
from mm_cpgd.training.processes.watch import ProcessWatch

__all__ = [
    "Limit",
    "ProcessWatch",
    "agree",
    "check_rows",
    "check_run_folder",
    "fail_start",
    "is_launched",
    "start_together",
]
