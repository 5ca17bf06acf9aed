"""Result folders for tests of the page, as written by ``mm-cpgd score``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from data import Example, ImageRef
from eval.benchmark import Benchmark, Response, ScoredRow
from eval.report import write_page
from eval.results import write_result
from rewards import Status, Verdict

RIGHT = Verdict(1.0, Status.CORRECT, "4", "4 equals 4")
WRONG = Verdict(0.0, Status.WRONG, "5", "5 differs from 4")
NOTHING = Verdict(0.0, Status.NO_ANSWER, None, "no answer was found")
UNJUDGED = Verdict(None, Status.NOT_JUDGED, None, "the judge did not reply")


def benchmark(name: str = "toy") -> Benchmark:
    return Benchmark(
        name=name,
        source="none",
        load=lambda source: [],
        prompt=lambda example: example.question,
        official=lambda example, response: RIGHT,
        groups=lambda example: {"level": [example.meta["level"]]} if "level" in example.meta else {},
    )


def row(
    name: str,
    *verdicts: Verdict,
    text: str = "It is 4.",
    sample: int = 0,
    finished: bool | None = True,
    level: str = "1",
    images: tuple[ImageRef, ...] = (),
    question: str = "How many?",
    choices: tuple[str, ...] = (),
) -> ScoredRow:
    """Make a row with a verdict of ``official``, and of ``verifier`` if a second one is given."""
    example = Example(name, question, "4", images, choices=choices, meta={"level": level})
    response = Response(name, text, sample, None, finished, 9)
    return ScoredRow(example, response, dict(zip(("official", "verifier"), verdicts, strict=False)))


def result(
    folder: Path, rows: Sequence[ScoredRow], name: str = "toy", settings: Mapping[str, Any] | None = None
) -> Path:
    write_result(folder, benchmark(name), rows, settings or {})
    return folder


def mixed(folder: Path) -> Path:
    """Write right, wrong, unparsed, truncated and unscored responses; on one the protocols disagree."""
    return result(
        folder,
        [
            row("q1", RIGHT, RIGHT),
            row("q2", WRONG, RIGHT, level="2"),
            row("q3", NOTHING, NOTHING, text="who knows", level="2"),
            row("q4", WRONG, WRONG, text="because the bicy", finished=False, level="10"),
            row("q5", UNJUDGED, RIGHT),
        ],
    )


class Page(HTMLParser):
    """Parsed page: tags, attributes, visible text, and the contents of its scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.scripts: dict[str, str] = {}
        self.text = ""
        self._inside: str | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        self.text += " " * (tag in ("td", "th", "br"))
        self._inside = (dict(attrs).get("id") or "code") if tag == "script" else None

    def handle_endtag(self, tag: str) -> None:
        self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts[self._inside] = self.scripts.get(self._inside, "") + data
        else:
            self.text += data

    @property
    def sets(self) -> list[dict[str, Any]]:
        return json.loads(self.scripts["answers-data"])

    @property
    def images(self) -> list[str]:
        return json.loads(self.scripts["images-data"])


def page(tmp_path: Path, *folders: Path, **options: Any) -> Page:
    labelled = [(folder.name, folder) for folder in folders]
    return Page(write_page(tmp_path / "page.html", labelled, **options).read_text(encoding="utf-8"))
