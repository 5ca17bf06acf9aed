"""Puts the page of results together."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from eval.report.answers import browser_data
from eval.report.pictures import BYTE_BUDGET, PageImages, Pictures
from eval.report.sheets import costs, paired, read_sheets
from mm_cpgd.config.yaml import dump_yaml
from mm_cpgd.report.page import percent, visible
from mm_cpgd.tracking.files import finite, writing


def write_page(
    path: str | Path,
    results: Sequence[tuple[str, Path]],
    *,
    images: Pictures | None = None,
    byte_budget: int = BYTE_BUDGET,
) -> Path:
    """Write one HTML file that shows results and every answer in them, and return its path.

    Args:
        path: of the page; its folder is made if need be.
        results: label and result folder of each; those of the same benchmark are shown side by side.
        images: gives a question's pictures by its id, for those that are no files; with several benchmarks a
            mapping of such functions by benchmark.
        byte_budget: of all thumbnails together; an image that finds no room is named.

    Raises:
        UserError: a folder holds no result, or the page cannot be written.
    """
    sheets = read_sheets(results)
    shown = PageImages(sheets, images, byte_budget)
    answers = browser_data(sheets, shown)
    script = _script()
    page = environment().get_template("page.html.jinja").render(
        title=" · ".join(sheet.benchmark for sheet in sheets),
        sheets=sheets,
        labels=list(dict.fromkeys(label for sheet in sheets for label in sheet.labels)),
        answers=embedded(answers),
        images=embedded(shown.urls),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )  # fmt: skip
    page_file = Path(path)
    with writing(page_file):
        page_file.parent.mkdir(parents=True, exist_ok=True)
        temporary = page_file.with_name(f".{page_file.name}.tmp")
        temporary.write_text(page, encoding="utf-8", errors="replace", newline="\n")
        os.replace(temporary, page_file)
    return page_file


def embedded(value: Any) -> Markup:
    """Return JSON that no text in it can end: every ``<`` is escaped, so no ``</script>`` and no ``<!--``."""
    text = json.dumps(finite(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))


def environment() -> jinja2.Environment:
    """Return the templates of this page, and those of the training report that it shares."""
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader("eval", "report"), jinja2.PackageLoader("mm_cpgd", "report")]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"visible": visible, "percent": percent, "between": between, "yaml": _yaml}
    environment.filters |= {"points": points, "paired": paired, "costs": costs}
    return environment


def between(score: Mapping[str, Any]) -> str:
    """Return ``37.5–46.2 %``, the ends of a score's interval."""
    low, high = score["interval"]
    return f"{100 * low:.1f}–{100 * high:.1f} %"


def points(share: float | None) -> str:
    """Return a difference of shares in percentage points, ``+1.2`` or ``−0.3``; ``–`` for None."""
    return "–" if share is None else f"{100 * share:+.1f}".replace("-", "−")


def _yaml(value: Any) -> str:
    return dump_yaml(dict(value))


def _script() -> str:
    """Return the page's script, whose hash is the only one that the page lets run."""
    folder = Path(__file__).parent
    parts = (folder / name for name in ("filters.js.jinja", "browser.js.jinja"))
    return "\n" + "".join(part.read_text(encoding="utf-8") for part in parts)
