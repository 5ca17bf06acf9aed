"""HTML code that the training report and the evaluation page share: template environment and filters."""

from __future__ import annotations

import re
from typing import Any

import jinja2

LONGEST_TEXT = 6_000
"""Characters of a text that are shown."""
# C0 and C1 control characters except tab and newline, lone surrogates, and the marks that reorder text.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


def template_environment(package: str, folder: str) -> jinja2.Environment:
    """Return an environment that escapes everything and has the filters ``sanitize`` and ``percent``.

    Args:
        package: import name of the package that holds the templates.
        folder: their folder in it. Templates that it lacks (the theme) come from this package.
    """
    # Always escape: jinja's autoescape by file name does not know the suffix .jinja.
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader(package, folder), jinja2.PackageLoader("mm_cpgd", "report")]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"sanitize": sanitize, "percent": percent}
    return environment


def sanitize(text: Any, longest: int = LONGEST_TEXT) -> str:
    """Return text without control characters (each becomes �), cut with a note of how much is missing."""
    whole = _UNSAFE.sub("�", str(text).replace("\r\n", "\n"))
    rest = len(whole) - longest
    return whole if rest <= 0 else f"{whole[:longest]}… ({rest:,} more characters)"


def percent(value: float) -> str:
    """Return ``41.8 %``."""
    return f"{100 * value:.1f} %"
