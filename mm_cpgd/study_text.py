"""What ``mm-cpgd study`` prints: the guard's shares, and two studies beside each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from mm_cpgd.study.comparing import Compared
from mm_cpgd.study.grid import method_named
from mm_cpgd.study.page import share

GUARD_LINES = {
    "false_alarms": "healthy runs with an alarm",
    "declined": "declining runs with an alarm",
    "noticed": "collapsing runs with an alarm before the loss",
    "rescued": "collapsing runs that rollback rescued",
}


def guard_table(summary: Mapping[str, Any]) -> Table:
    """Return the shares of ``guard_summary.summarise_guard``."""
    table = Table("of the study's runs", "count (95 %)", title="the guard")
    for key, text in GUARD_LINES.items():
        table.add_row(text, share(summary[key]))
    if summary["lead"]:
        lead = "{median:g} ({least}–{most})".format(**summary["lead"])
        table.add_row("iterations before, median (range)", lead)
    return table


def compare_table(found: Compared) -> Table:
    """Return collapse rates and places of both; rates agree where each is in the other's interval."""
    table = Table(
        "objective", "collapsed, first (95 %)", "collapsed, second (95 %)", "place", "within intervals"
    )
    for place, name in enumerate(found.rankings[0], 1):
        one, other = (share(side["collapse"]) for side in found.methods[name])
        places = f"{place} → {found.rankings[1].index(name) + 1}"
        table.add_row(method_named(name).label, one, other, places, "yes" if found.agrees(name) else "no")
    return table


def order_text(found: Compared) -> str:
    """Say in a line how alike the orders are."""
    levels = f"{found.levels} levels of stress in both"
    if found.tau is None:
        return f"{levels}; one objective has no order"
    if not found.turned:
        return f"{levels}; the same order of objectives"
    turned = "; ".join(
        f"{method_named(one).label} and {method_named(other).label}" for one, other in found.turned
    )
    return f"{levels}; Kendall's τ of the orders {found.tau:.2f}; in another order: {turned}"
