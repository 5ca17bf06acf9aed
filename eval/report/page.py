"""Assembly of the page of results from its templates, data and script."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from eval.report.images import BYTE_BUDGET, ImageLookup, PageImages
from eval.report.responses import browser_data
from eval.report.sheets import control_drops, paired, read_sheets
from mm_cpgd.config.yaml import dump_yaml
from mm_cpgd.report.html import template_environment
from mm_cpgd.tracking.files import finite, writing


def write_page(
    path: str | Path,
    results: Sequence[tuple[str, Path]],
    *,
    images: ImageLookup | None = None,
    byte_budget: int = BYTE_BUDGET,
) -> Path:
    """Write one HTML file with results and all their responses, and return its path.

    Args:
        path: of the page; its folder is created if it does not exist.
        results: label and folder of each result; those of the same benchmark are shown side by side.
        images: returns a question's images by its id, for images that are not files; with several benchmarks
            a mapping of such functions by benchmark.
        byte_budget: of all thumbnails together; of images beyond it only the origin is shown.

    Raises:
        UserError: a folder contains no result, or the page cannot be written.
    """
    sheets = read_sheets(results)
    shown = PageImages(sheets, images, byte_budget)
    responses = browser_data(sheets, shown)
    script = _script()
    page = environment().get_template("page.html.jinja").render(
        title=" · ".join(sheet.benchmark for sheet in sheets),
        sheets=sheets,
        labels=list(dict.fromkeys(label for sheet in sheets for label in sheet.labels)),
        responses=embedded(responses),
        images=embedded(shown.urls),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )  # fmt: skip
    page_file = Path(path)
    with writing(page_file):
        page_file.parent.mkdir(parents=True, exist_ok=True)
        temporary = page_file.with_name(f".{page_file.name}.tmp")
        temporary.write_text(page, encoding="utf-8", errors="replace", newline="\n")
        temporary.replace(page_file)
    return page_file


def embedded(value: Any) -> Markup:
    """Return JSON for a script element: every ``<`` is escaped, so that no text can contain ``</script>``."""
    text = json.dumps(finite(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))


def environment() -> jinja2.Environment:
    """Return the template environment of the page, which includes the templates of the training report."""
    environment = template_environment("eval", "report")
    environment.filters |= {"between": between, "yaml": _yaml}
    environment.filters |= {"points": points, "paired": paired, "control_drops": control_drops}
    return environment


def between(score: Mapping[str, Any]) -> str:
    """Return the interval of a score, as ``37.5–46.2 %``."""
    low, high = score["interval"]
    return f"{100 * low:.1f}–{100 * high:.1f} %"


def points(share: float | None) -> str:
    """Return a difference of shares in percentage points, ``+1.2`` or ``−0.3``; ``–`` for None."""
    return "–" if share is None else f"{100 * share:+.1f}".replace("-", "−")


def _yaml(value: Any) -> str:
    return dump_yaml(dict(value))


def _script() -> str:
    """Return the page's script, the only one that its content security policy allows to run."""
    folder = Path(__file__).parent
    parts = (folder / name for name in ("filters.js.jinja", "browser.js.jinja"))
    return "\n" + "".join(part.read_text(encoding="utf-8") for part in parts)
