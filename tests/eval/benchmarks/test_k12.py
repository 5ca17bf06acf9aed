"""K12 as a benchmark."""

import json
from pathlib import Path

import pytest

from data import DataError
from eval.benchmark import DataSource, Response
from eval.benchmarks import k12
from tests.paths import DATASETS

K12 = DATASETS / "k12"


def test_k12_requires_a_path():
    with pytest.raises(DataError, match="K12 is not on the hub; give the folder eval/k12"):
        k12.benchmark.load(DataSource())


def test_k12_is_scored_by_the_verifier(tmp_path):
    row = {"id": "a", "question": "$x$?", "answer": "$$\\frac{1}{2}$$", "image_path": "images/a.png"}
    (tmp_path / "k12.json").write_text(json.dumps([row]))
    (example,) = k12.benchmark.load(DataSource(str(tmp_path)))
    for text, score in (("\\boxed{0.5}", 1), ("\\boxed{2}", 0)):
        assert k12.benchmark.official(example, Response("a", text)).score == score
    assert k12.benchmark.prompt(example).startswith("<image>\n$x$?\n\n")
    assert k12.benchmark.groups(example) == {}


@pytest.mark.shared
def test_the_real_k12_is_read_and_finds_its_images():
    if not K12.is_dir():
        pytest.skip("the real data is not beside the project (../shared/datasets/k12)")
    examples = k12.benchmark.load(DataSource(str(K12)))
    assert len(examples) == 500
    assert all(Path(K12 / e.images[0].origin).is_file() for e in examples)
    assert examples[0].images[0].open().mode == "RGB"
