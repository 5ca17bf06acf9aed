"""Selection of the rollouts that a report shows."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from data.example import ImageRef
from mm_cpgd.report.examples import choose_rollouts, evenly_spaced, thirds
from mm_cpgd.tracking import PromptRollout, RolloutLog
from tests.fakes.rollouts import group, red_image, write_rollouts


def rollouts(
    folder: Path, groups: Sequence[Sequence[PromptRollout]], images: Callable[[int], list[ImageRef]]
) -> None:
    log = RolloutLog(folder, images=9)
    for iteration, prompts in enumerate(groups, 1):
        write_rollouts(log, iteration, prompts, [images(index) for index in range(len(prompts))])


def test_rollouts_are_chosen_early_middle_and_late_right_and_wrong(tmp_path: Path) -> None:
    rollouts(tmp_path, [[group(i % 5), group((i + 2) % 5)] for i in range(30)], lambda _: [red_image()])
    chosen = choose_rollouts(tmp_path)
    assert [shown.stage for shown in chosen] == ["early"] * 4 + ["middle"] * 4 + ["late"] * 4
    assert [shown.iteration for shown in chosen] == sorted(shown.iteration for shown in chosen)
    for stage in ("early", "middle", "late"):
        assert sorted(shown.right for shown in chosen if shown.stage == stage) == [0, 2, 2, 4]


def test_prompts_with_an_image_come_first(tmp_path: Path) -> None:
    prompts = [group(4, name="seen"), group(4, name="unseen")]
    rollouts(tmp_path, [prompts] * 3, lambda index: [red_image()] if index == 0 else [])
    assert [shown.prompt.id for shown in choose_rollouts(tmp_path, per_stage=1)] == ["seen"] * 3


def test_an_image_outside_the_folder_is_not_inlined(tmp_path: Path) -> None:
    log = RolloutLog(tmp_path / "rollouts")
    write_rollouts(log, 1, [group(1)], [[red_image()]])
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    (tmp_path / "rollouts" / "images" / "link.png").symlink_to(tmp_path / "secret.png")
    row = json.loads(log.path(1).read_text())
    row["images"] = ["../../secret.png", "link.png", "../../config.yaml", "absent.png", *row["images"]]
    log.path(1).write_text(json.dumps(row) + "\n")
    shown = choose_rollouts(tmp_path / "rollouts")
    assert [len(one.images) for one in shown] == [1]


def test_thirds_cover_everything_once() -> None:
    assert thirds([1, 2, 3, 4, 5]) == [[1, 2], [3], [4, 5]]
    assert thirds([]) == [[], [], []]


def test_evenly_spaced_items_include_the_first_and_the_last() -> None:
    assert evenly_spaced(list(range(10)), 4) == [0, 3, 6, 9]
    assert evenly_spaced([1, 2], 4) == [1, 2]
