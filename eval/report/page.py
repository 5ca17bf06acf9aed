"""Page of results: JSON data of the response browser, and assembly from the templates."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from eval.reference.against import reference_lines
from eval.report.images import BYTE_BUDGET, ImageLookup, PageImages
from eval.report.sheets import Sheet, control_drops, paired, read_sheets
from mm_cpgd.config.yaml import dump_yaml
from mm_cpgd.report.html import sanitize, template_environment
from mm_cpgd.tracking.files import finite, writing

TEXT_BUDGET = 40_000_000
"""Characters of all responses; beyond it each is cut in its middle, because answers are at the end."""
LONGEST_TEXT, SHORTEST_TEXT = 20_000, 500
# Temml 0.13.5 renders LaTeX as MathML (github.com/ronkok/Temml, MIT: temml.LICENSE.txt).
SCRIPTS = ("filters.js.jinja", "temml.min.js", "math.js.jinja", "browser.js.jinja")

Row = Mapping[str, Any]
# Returns what the page stores for a row's images, given its result's index: thumbnail indices or origins.
Images = Callable[[Sheet, int, Row], list[int | str]]


def browser_data(sheets: Sequence[Sheet], images: Images) -> list[dict[str, Any]]:
    """Return one entry per benchmark, with the responses of all its results.

    Returns:
        ``name``, ``results`` (labels), ``protocols``, ``samples`` (numbers that occur), ``groups`` (values by
        dimension), ``questions``; the responses to a question are ``answers[result][sample number]``.
    """
    longest = longest_text(row["response"] for sheet in sheets for rows in sheet.rows for row in rows)
    return [_sheet_data(sheet, images, longest) for sheet in sheets]


def longest_text(texts: Iterable[str], budget: int = TEXT_BUDGET) -> int:
    """Return the limit per text that keeps the budget: ``LONGEST_TEXT``, halved as often as needed."""
    lengths = [len(text) for text in texts]
    limit = LONGEST_TEXT
    while limit > SHORTEST_TEXT and sum(min(length, limit) for length in lengths) > budget:
        limit //= 2
    return max(limit, SHORTEST_TEXT)


def shortened(text: str, longest: int) -> str:
    """Return a text of about ``longest`` characters: its beginning, a note of the omission, its end."""
    rest = len(text) - longest
    if rest <= 0:
        return sanitize(text, len(text))
    head = longest // 2
    parts = text[:head], f"\n\n[… {rest:,} characters omitted …]\n\n", text[head + rest :]
    return sanitize("".join(parts), len(text) + 100)


def _sheet_data(sheet: Sheet, images: Images, longest: int) -> dict[str, Any]:
    questions: dict[str, dict[str, Any]] = {}
    samples: set[int] = set()
    protocols = sheet.protocols
    for place, rows in enumerate(sheet.rows):
        for row in rows:
            samples.add(row["sample"])
            shown = images(sheet, place, row)
            question = questions.setdefault(row["id"], _question(row, shown, len(sheet.rows)))
            others = shown if shown != question["images"] else None
            response = _response(row, protocols, longest) | {"images": others}
            question["answers"][place][str(row["sample"])] = response
    return {
        "name": sanitize(sheet.benchmark, 200),
        "results": [sanitize(label, 200) for label in sheet.labels],
        "protocols": protocols,
        "samples": sorted(samples),
        "groups": {name: list(values) for name, values in sheet.groups(protocols[0]).items()}
        if protocols
        else {},
        "questions": list(questions.values()),
    }


def _question(row: Row, images: list[int | str], results: int) -> dict[str, Any]:
    return {
        "id": row["id"],
        "question": sanitize(row["question"]),
        "choices": [sanitize(choice, 2_000) for choice in row["choices"]],
        "answer": sanitize(row["answer"], 2_000),
        "groups": row["groups"],
        "images": images,
        "answers": [{} for _ in range(results)],
    }


def _response(row: Row, protocols: Sequence[str], longest: int) -> dict[str, Any]:
    return {
        "text": shortened(row["response"], longest),
        "missing": bool(row.get("missing")),
        "finished": row["finished"],
        "tokens": row["tokens"],
        "verdicts": [_verdict(row["protocols"].get(name)) for name in protocols],
    }


def _verdict(verdict: Row | None) -> list[Any] | None:
    """Return score, status, extracted answer and reason; None if the protocol was not requested."""
    if verdict is None:
        return None
    extracted = verdict["extracted"]
    return [
        verdict["score"],
        verdict["status"],
        None if extracted is None else sanitize(extracted, 500),
        sanitize(verdict["reason"], 1_000),
    ]


def write_page(
    path: str | Path,
    results: Sequence[tuple[str, Path]],
    *,
    images: ImageLookup | None = None,
    byte_budget: int = BYTE_BUDGET,
) -> Path:
    """Write one HTML file with results and all their responses, and return its path.

    Args:
        path: file of the page; its folder is created if it does not exist.
        results: label and folder of each result; those of the same benchmark are shown side by side.
        images: returns a question's images by its id, for images that are not files; with several benchmarks
            a mapping of such functions by benchmark.
        byte_budget: size of all thumbnails together; of images beyond it only the origin is shown.

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
    environment.filters |= {
        "published": reference_lines,
        "points": points,
        "paired": paired,
        "control_drops": control_drops,
    }
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
    parts = (folder / name for name in SCRIPTS)
    return "\n" + "".join(part.read_text(encoding="utf-8") for part in parts)
