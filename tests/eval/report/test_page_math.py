"""Formulas on the page in a real browser: rendered, or left as their source, never as markup."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eval.report import write_page
from rewards import Status, Verdict
from tests.fakes.chromium import Chromium
from tests.fakes.results import RIGHT, WRONG, result, row

# Of the text: its formulas as "<…>" with the characters that MathML shows, all else as it is.
SHOWN = """(node => [...node.childNodes].map(one =>
  one.nodeType === 3 ? one.data : `<${one.textContent.replace(/[\\u2061-\\u2064\\s]/g, "")}>`).join(""))"""


Shown = Callable[..., Any]


@pytest.fixture
def shown(browser: Chromium, tmp_path: Path) -> Shown:
    """Show a response, and return what its box contains."""

    def show(text: str, **more: Any) -> Any:
        folder = result(tmp_path / "run", [row("q1", more.pop("verdict", WRONG), text=text, **more)])
        browser.open(write_page(tmp_path / "page.html", [("model", folder)]))
        assert browser.problems == []
        return browser.run(f"{SHOWN}(document.querySelector('.completion'))")

    return show


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("so $x=3$ and $y$.", "so <x=3> and <y>."),
        (r"\(a\) then \[b\] end", "<a> then <b> end"),
        ("first\n$$x$$\nlast", "first\n<x>last"),
        (r"\begin{align*}a&=b\end{align*}", "<a=b>"),
        (r"Hence \boxed{\frac{5}{8}}.", "Hence <58>."),
        ("$50%$ of it", "<50%> of it"),
        (r"$5\mbox{ cm}$", "<5cm>"),
    ],
)
def test_formulas_in_every_delimiter_are_rendered(shown: Shown, text: str, rendered: str) -> None:
    assert shown(text) == rendered


@pytest.mark.parametrize(
    "text",
    [
        "Tea costs $8 and cake costs $11. $8 + $11 = $19. Mia pays $19.",
        "That is $8 and 11 (US$).",
        "from $5-$10",
        r"\$5 and 5\$",
        r"broken: $\frac{1$ and $\foo{x}$ and \[ without an end",
        r"$\begin{matrix} 1$ and $\left( x$ and $a & b$",
        "$ x $ and $a\n\nb$",
        "no formula at all",
    ],
)
def test_money_and_what_is_not_understood_stay_as_they_are(shown: Shown, text: str) -> None:
    assert shown(text) == text


@pytest.mark.parametrize(
    "formula",
    [
        r"\href{javascript:alert(1)}{x}",
        r"\url{https://evil.example}",
        r"\includegraphics{https://evil.example/a.png}",
        r"\class{bad}{x}",
        r"\id{detail}{x}",
        r"\style{position:fixed}{x}",
        r"\htmlId{detail}{x}",
        r"\rule{1000em}{1000em}",
        r"\raisebox{-90em}{cover}",
        r"\kern-900em cover",
        r"\phantom{hidden}",
        r"\color{white} hidden",
        r"\textcolor{white}{hidden}",
        r"\def\a{\a\a}\a",
        r"\newcommand{\frac}{wrong}\frac",
    ],
)
def test_formulas_that_link_load_hide_or_move_stay_as_their_source(shown: Shown, formula: str) -> None:
    assert shown(f"a ${formula}$ b") == f"a ${formula}$ b"


@pytest.mark.parametrize("depth", [1_000, 3_000])
def test_deep_nesting_does_not_break_the_page(shown: Shown, depth: int) -> None:
    source = f"a ${'{' * depth}x{'}' * depth}$ b"
    assert shown(source) in (source, "a <x> b")


def test_markup_in_a_formula_is_text(shown: Shown, browser: Chromium) -> None:
    hostile = r"$\text{</span><img src=x onerror='window.broken = 1'>}$"
    assert shown(hostile) == "<</span><imgsrc=xonerror='window.broken=1'>>".replace("'", "’")
    assert browser.run("document.querySelectorAll('#detail img').length") == 0
    assert browser.run("window.broken ?? null") is None


def test_a_formula_is_painted_within_its_box_and_the_page_stays_as_wide(
    shown: Shown, browser: Chromium
) -> None:
    browser.resize(400, 800)
    shown("$" + "+".join(f"x_{i}" for i in range(200)) + "$ $$" + "y+" * 200 + "y$$")
    assert browser.run("document.documentElement.scrollWidth") <= 400
    assert browser.run("getComputedStyle(document.querySelector('.formula')).contain") == "paint"
    browser.resize(1200, 800)


def test_question_choices_and_gold_answer_are_rendered_and_the_extracted_source_stays(
    shown: Shown, browser: Chromium
) -> None:
    verdict = Verdict(0.0, Status.WRONG, r"\frac{1}{2}", "differs")
    shown("x", verdict=verdict, question="Find $y$", choices=("$z$", "2"))
    assert browser.run(f"{SHOWN}(document.querySelector('.asked .text'))") == "Find <y>"
    assert browser.run("document.querySelectorAll('.choices math').length") == 1
    extracted = "document.querySelector('.verdicts li')"
    assert browser.run(f"{extracted}.querySelector('.read').textContent") == r"\frac{1}{2}"
    assert browser.run(f"{extracted}.querySelectorAll('.beside math').length") == 1


def test_the_source_can_be_shown_by_a_button_and_by_a_key(shown: Shown, browser: Chromium) -> None:
    shown("so $x$", verdict=RIGHT)
    browser.run("document.getElementById('source').click()")
    assert browser.run(f"{SHOWN}(document.querySelector('.completion'))") == "so $x$"
    assert browser.run("document.getElementById('source').getAttribute('aria-pressed')") == "true"
    browser.press("m")
    assert browser.run(f"{SHOWN}(document.querySelector('.completion'))") == "so <x>"


def test_many_openers_without_an_end_take_no_time(shown: Shown, browser: Chromium) -> None:
    shown("\\(" * 3_000 + "$" * 2_999 + "\\boxed{" * 500 + "\\begin{align}" * 300)
    took = "(() => { const t = performance.now(); drawDetail(); return performance.now() - t; })()"
    assert browser.run(took) < 1_500
