"""Random models of the measurements have the shapes of the published ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText

from benchmarks.performance.models import config_of, processor_for, random_model, write_model

# Sums over the tensors of the published files.
WEIGHTS = {"3b": 3_754_622_976, "7b": 8_292_166_656}


@pytest.mark.parametrize("shape", WEIGHTS)
def test_a_shape_has_as_many_weights_as_the_published_model(shape: str) -> None:
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config_of(shape))
    assert sum(parameter.numel() for parameter in model.parameters()) == WEIGHTS[shape]


def test_a_written_model_is_loaded_and_not_written_again(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "tiny", "tiny", 64)
    before = (folder / "config.json").stat().st_mtime_ns
    assert write_model(folder, "tiny", 64).joinpath("config.json").stat().st_mtime_ns == before
    loaded = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    wanted = random_model("tiny", "cpu").state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in loaded.state_dict().items())
    assert [one.name for one in tmp_path.iterdir()] == ["tiny"]


def test_images_of_the_work_are_not_scaled() -> None:
    from benchmarks.performance.workload import images

    processor = processor_for(2048)
    (image,) = images(2048, 1)
    grid = processor.image_processor(images=[image], return_tensors="pt")["image_grid_thw"]
    assert int(grid.prod()) // 4 == 2048
