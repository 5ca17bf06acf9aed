import base64
import json
import re
import sys
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from data import images
from data.example import DataError, Example
from data.load import ExampleSet, Quarantined, TooManyBadRows, load_examples, write_quarantine
from tests.paths import ROOT

Jsonl = Callable[..., Path]
Png = Callable[..., bytes]
GOOD = {"question": "q", "answer": "1", "image": "a.png"}


@pytest.fixture
def load(jsonl: Jsonl, tmp_path: Path, png: Png) -> Callable[..., ExampleSet]:
    """Load rows (with ids, beside an image) of which any share may be bad."""
    (tmp_path / "a.png").write_bytes(png(size=(8, 4)))
    (tmp_path / "torn.png").write_bytes(png(size=(8, 4))[:50])

    def run(*rows: Any, max_bad_share: float = 1.0, **options: Any) -> ExampleSet:
        named = [{"id": str(i), **row} if isinstance(row, dict) else row for i, row in enumerate(rows)]
        return load_examples(jsonl(named), max_bad_share=max_bad_share, **options)

    return run


Load = Callable[..., ExampleSet]


def test_good_rows_are_examples_in_their_order(load: Load) -> None:
    found = load(GOOD, GOOD)
    assert [example.id for example in found.examples] == ["0", "1"]
    assert (found.quarantined, found.total) == ([], 2)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image": "gone.png"}, r"gone\.png does not exist"),
        ({"image": "torn.png"}, r"torn\.png cannot be decoded"),
        ({"image": "rows.jsonl"}, "is none of PNG"),
        ({"image": "https://a.example/b.png"}, "is a web address"),
        ({"question": "see <image2>"}, "has <image2>, but the row has 1 image"),
        ({"image": None, "question": "see <image>"}, "has <image>, but the row has no image"),
        ({"choices": ["<image2>", "x"]}, "has <image2>, but the row has 1 image"),
        ({"question": "a<|image_pad|>b"}, r"control token <\|image_pad\|>"),
        ({"question": "a<|vision_start|>b"}, r"control token <\|vision_start\|>"),
        ({"question": "a<|im_end|>b"}, r"control token <\|im_end\|>"),
        ({"choices": ["<|im_end|>"]}, r"control token <\|im_end\|>"),
        ({"solution": "so<|im_end|>"}, r"control token <\|im_end\|>"),
        ({"question": " \n"}, "empty question"),
        ({"answer": " "}, "empty answer"),
        ({"answer": None}, "empty answer"),
        ({"id": "0"}, r"the id '0' is already used by rows\.jsonl:1"),
        ({"choices": 3}, "choices is a int"),
    ],
)
def test_a_bad_row_is_quarantined_with_its_reason(load: Load, change: dict[str, Any], reason: str) -> None:
    found = load(GOOD, {**GOOD, **change}, GOOD)
    assert [example.id for example in found.examples] == ["0", "2"]
    (bad,) = found.quarantined
    assert bad.source == "rows.jsonl:2"
    assert re.search(reason, bad.reason)


def test_a_malformed_line_is_quarantined(load: Load) -> None:
    (bad,) = load(GOOD, "{oops").quarantined
    assert (bad.id, bad.source) == ("", "rows.jsonl:2")


def test_a_bomb_is_quarantined(load: Load) -> None:
    (bad,) = load({**GOOD, "image": None}, GOOD, max_image_pixels=31).quarantined
    assert "8 × 4 pixels, a decompression bomb" in bad.reason


def test_the_header_check_finds_no_broken_pixels_but_bombs(load: Load) -> None:
    torn = {**GOOD, "image": "torn.png"}
    assert load(GOOD, torn, check_images="header").quarantined == []
    with pytest.raises(TooManyBadRows, match="decompression bomb"):
        load(GOOD, torn, check_images="header", max_image_pixels=31)


def test_control_tokens_of_another_family_can_be_named(load: Load) -> None:
    rows = {**GOOD, "question": "<start_of_image>"}, {**GOOD, "question": "<|im_end|>"}
    (bad,) = load(*rows, control_tokens=("<start_of_image>",)).quarantined
    assert bad.id == "0"


def test_an_extra_check_can_refuse_a_row(load: Load) -> None:
    found = load(GOOD, GOOD, extra_checks=[lambda example: "too long" if example.id == "1" else None])
    assert found.quarantined == [Quarantined("1", "rows.jsonl:2", "too long")]


def test_an_extra_check_sees_only_rows_that_passed_the_others_on_the_calling_thread(load: Load) -> None:
    seen: list[tuple[str, int]] = []

    def check(example: Example) -> None:
        seen.append((example.id, threading.get_ident()))

    load({**GOOD, "image": "gone.png"}, GOOD, extra_checks=[check], threads=4)
    assert seen == [("1", threading.get_ident())]


def test_bad_rows_up_to_the_share_are_accepted(load: Load) -> None:
    rows = [GOOD] * 3 + [{**GOOD, "answer": ""}]
    assert len(load(*rows, max_bad_share=0.25).examples) == 3


def test_more_bad_rows_than_the_share_stop_with_the_first_few(load: Load) -> None:
    rows = [GOOD] * 3 + [{**GOOD, "answer": ""}] * 7
    with pytest.raises(TooManyBadRows, match=r"7 of 10 rows .* \(70.0%, allowed 69.0%\)") as caught:
        load(*rows, max_bad_share=0.69)
    message = str(caught.value)
    assert message.count("empty answer") == 5
    assert "rows.jsonl:4: empty answer" in message
    assert message.endswith("… and 2 more")
    assert len(caught.value.quarantined) == 7


def test_no_valid_row_is_an_error_whatever_the_share(load: Load) -> None:
    with pytest.raises(DataError, match=r"none of the 1 rows .* can be used"):
        load({**GOOD, "answer": ""}, max_bad_share=1.0)


def test_a_set_without_rows_is_an_error(load: Load) -> None:
    with pytest.raises(DataError, match="has no rows after offset 5; lower it"):
        load(GOOD, offset=5)


def test_a_mapping_to_a_column_of_no_row_is_one_error(load: Load) -> None:
    with pytest.raises(DataError, match="answer is mapped to 'gold'"):
        load(GOOD, columns={"answer": "gold"})


def test_rows_in_memory_with_pil_images_are_accepted() -> None:
    found = load_examples([{"question": "q", "answer": "1", "image": Image.new("RGB", (3, 2))}])
    assert found.examples[0].images[0].open().size == (3, 2)


def test_progress_counts_every_row(load: Load) -> None:
    calls: list[tuple[int, int]] = []
    load(GOOD, {**GOOD, "answer": ""}, GOOD, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_every_image_is_opened_once_for_the_check_and_once_for_each_use(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    original = images.open_paths

    def counting(paths: tuple[Path, ...]) -> Any:
        opened.append(paths[0])
        return original(paths)

    monkeypatch.setattr(images, "open_paths", counting)
    found = load(*[GOOD] * 20)
    assert len(opened) == 20
    found.examples[3].images[0].open()
    assert len(opened) == 21


def test_embedded_images_do_not_stay_in_memory(jsonl: Jsonl, png: Png) -> None:
    # A BMP of 200 × 200 pixels takes 120 kB, so 60 rows hold 9.6 MB as text; one at a time is enough.
    url = "data:image/bmp;base64," + base64.b64encode(png(size=(200, 200), kind="BMP")).decode()
    file = jsonl({"question": "q", "answer": "1", "image": url} for _ in range(60))
    tracemalloc.start()
    try:
        found = load_examples(file, check_images="header", threads=1)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 2_000_000 < file.stat().st_size
    assert found.examples[59].images[0].open().size == (200, 200)


def test_embedded_images_of_one_row_are_distinguished_when_reloaded(jsonl: Jsonl, png: Png) -> None:
    urls = ["data:image/png;base64," + base64.b64encode(png(colour)).decode() for colour in ("red", "blue")]
    (example,) = load_examples(jsonl([{"question": "q", "answer": "1", "images": urls}])).examples
    assert [ref.open().getpixel((0, 0)) for ref in example.images] == [(255, 0, 0), (0, 0, 255)]


def test_generated_rows_need_a_limit() -> None:
    with pytest.raises(DataError, match="set limit to the number of rows"):
        load_examples("generated:clock")


def test_generated_rows_follow_seed_and_offset() -> None:
    whole = load_examples("generated:clock,chart", limit=6, seed=4).examples
    part = load_examples("generated:clock,chart", limit=4, seed=4, offset=2).examples
    assert [(row.id, row.question) for row in part] == [(row.id, row.question) for row in whole[2:]]
    other = load_examples("generated:clock,chart", limit=6, seed=5).examples
    assert not {row.id for row in whole} & {row.id for row in other}
    assert {row.meta["kind"] for row in whole} == {"clock", "chart"}


def test_generated_rows_pass_extra_checks() -> None:
    with pytest.raises(TooManyBadRows, match="too long"):
        load_examples("generated:clock", limit=2, extra_checks=[lambda _: "too long"])


def test_the_quarantine_file_has_one_row_per_line(tmp_path: Path) -> None:
    rows = [Quarantined("1", "rows.jsonl:1", "empty answer"), Quarantined("\ud800", "é", "“x”\ny")]
    write_quarantine(tmp_path / "run" / "quarantine.jsonl", rows)
    lines = (tmp_path / "run" / "quarantine.jsonl").read_text("utf-8").splitlines()
    assert json.loads(lines[0]) == {"id": "1", "source": "rows.jsonl:1", "reason": "empty answer"}
    assert json.loads(lines[1])["reason"] == "“x”\ny"


def test_a_quarantine_file_is_complete_or_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "quarantine.jsonl"
    write_quarantine(file, [Quarantined("1", "a", "old")])
    monkeypatch.setattr("data.load.json.dumps", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_quarantine(file, [Quarantined("2", "b", "new")])
    assert json.loads(file.read_text())["reason"] == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_importing_data_imports_no_torch() -> None:
    import subprocess

    code = "import data, sys; sys.exit('torch' in sys.modules or 'datasets' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.shared
def test_k12_loads_without_a_mapping(datasets_folder: Path) -> None:
    found = load_examples(datasets_folder / "k12" / "k12.json", check_images="header")
    assert (len(found.examples), found.quarantined) == (500, [])
    assert all(len(example.images) == 1 for example in found.examples)


@pytest.mark.shared
def test_tabmwp_loads_with_a_template_for_its_images(datasets_folder: Path) -> None:
    path = datasets_folder / "tabmwp" / "problems_dev1k.json"
    found = load_examples(path, columns={"image": "tables/{id}.png", "solution": "solution"})
    assert (len(found.examples), found.quarantined) == (1000, [])
    first = found.examples[0]
    assert (first.id, first.answer, first.choices) == ("33", "nonlinear", ("linear", "nonlinear"))
    assert all(example.solution for example in found.examples)
    assert first.meta["grade"] == 8


@pytest.mark.shared
def test_mathvision_rows_that_mark_more_images_than_they_have_are_quarantined(datasets_folder: Path) -> None:
    found = load_examples(datasets_folder / "mathvision", split="testmini", max_bad_share=0.2)
    assert (len(found.examples), len(found.quarantined)) == (246, 58)
    assert all("<image2>, but the row has 1 image" in bad.reason for bad in found.quarantined)
    assert found.examples[0].meta == {"level": 1, "subject": "counting"}
