"""Conversations in the report: replies with their pictures, and where on the prompt's image they looked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mm_cpgd.report.examples import Look, choose_rollouts
from mm_cpgd.report.page import write_report
from mm_cpgd.tracking import LoggedTurn, PromptRollout, RolloutLog, ScoredCompletion, read_rollouts
from tests.fakes.rollouts import RIGHT, WRONG, red_image, write_rollouts

CORNER, MIDDLE = (0, 0.0, 0.0, 0.25, 0.5), (0, 0.4, 0.4, 0.6, 0.6)


def talk(parts: tuple[Any, ...], right: bool, pictures: int = 1) -> ScoredCompletion:
    reply = "<tool_response>\n\n</tool_response>\n"
    look = LoggedTurn("look", reply, "called zoom", parts=parts, pictures=(red_image(),) * pictures)
    verdict = {"accuracy": RIGHT if right else WRONG}
    return ScoredCompletion("done", 9, True, 1.0, 0.5, verdict, (look, LoggedTurn("done")))


def written(folder: Path, *completions: ScoredCompletion) -> Path:
    log = RolloutLog(folder)
    write_rollouts(log, 1, [PromptRollout("q", "How many?", "4", completions)], [[red_image()]])
    return log.path(1)


def test_a_group_looked_at_each_part_so_often(tmp_path: Path) -> None:
    twice = (CORNER, MIDDLE, CORNER)
    file = written(tmp_path, talk(twice, True), talk((CORNER,), False), talk((), True))
    assert read_rollouts(file)[0].completions[0].turns[0].parts == twice
    (shown,) = choose_rollouts(tmp_path, per_stage=1)
    assert shown.looks == (
        (Look(0.0, 0.0, 0.25, 0.5, 2, 1), Look(0.4, 0.4, pytest.approx(0.2), pytest.approx(0.2), 1, 1)),
    )


@pytest.mark.parametrize(
    "part",
    [
        (),
        (0, 0, 0, 1),
        (1, 0, 0, 1, 1),
        (0, 0.5, 0, 0.5, 1),
        (0, -1, 0, 1, 1),
        (0, 0, 0, 1, float("nan")),
        (0, 0, 0, '1"><script>', 1),
    ],
)
def test_what_is_no_part_of_the_image_is_left_out(tmp_path: Path, part: tuple[Any, ...]) -> None:
    written(tmp_path, talk((part,), True))
    assert choose_rollouts(tmp_path, per_stage=1)[0].looks == ((),)


def test_the_page_shows_replies_with_their_pictures_and_the_parts(run: Path) -> None:
    log = RolloutLog(run / "rollouts")
    completions = tuple(talk((MIDDLE,), number < 2) for number in range(6))
    write_rollouts(log, 7, [PromptRollout("q", "Where?", "4", completions)], [[red_image()]])
    html = write_report(run).read_text(encoding="utf-8")
    article = html[html.index("Where?") - 3000 : html.index("</article>", html.index("Where?"))]
    assert 'class="bad" title="6 looked here, 2 of them right"' in article
    assert re.search(r'style="left:40\.0%;top:40\.0%;width:20\.0%;height:20\.0%"', article)
    assert article.count("image 1 after turn 1") == 4
    assert article.count("1 image in rollouts/images") == 2
    assert article.count("&lt;tool_response&gt;\n&lt;/tool_response&gt;</div>") == 6
