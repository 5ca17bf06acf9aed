"""A model that cannot be trained as it is ends the start, with one message that says why."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForImageTextToText
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from benchmarks.families.build import FAMILIES
from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.errors import UserError
from mm_cpgd.policy import load_policy, load_processor
from mm_cpgd.policy.support import check_complete

Weights = dict[str, Tensor]


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny policy, to be damaged."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def change_weights(folder: Path, change: Callable[[Weights], Weights | None]) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file(change(weights) or weights, folder / "model.safetensors", metadata={"format": "pt"})


def change_json(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def refusal(folder: Path, capfd: pytest.CaptureFixture[str] | None = None) -> str:
    """Return the one message of loading; nothing else may be printed."""
    if capfd:
        capfd.readouterr()
    with pytest.raises(UserError) as caught:
        load_policy(PolicyConfig(model=str(folder)))
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 900
    assert str(folder) in message
    if capfd:
        assert "LOAD REPORT" not in "".join(capfd.readouterr())
    return message


def loads_or_says_why(folder: Path) -> None:
    message = None
    try:
        load_policy(PolicyConfig(model=str(folder)))
    except UserError as error:
        message = str(error)
    assert message is None or str(folder) in message


LAYER = "model.language_model.layers.1.mlp.down_proj.weight"


def stored_name(folder: Path, end: str) -> str:
    return next(key for key in load_file(folder / "model.safetensors") if key.endswith(end))


def test_a_missing_tensor_is_named(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    change_weights(
        folder, lambda weights: void(weights.pop(stored_name(folder, "layers.1.mlp.down_proj.weight")))
    )
    message = refusal(folder, capfd)
    assert f"1 tensor is missing, and would be random ({LAYER})" in message


def void(_: Any) -> None:
    return None


def test_a_vision_tower_under_another_prefix_is_refused_with_both_prefixes(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    towers = {key for key in load_file(folder / "model.safetensors") if "visual." in key}

    def rename(weights: Weights) -> Weights:
        return {
            "tower." + key.split("visual.")[1] if key in towers else key: value
            for key, value in weights.items()
        }

    change_weights(folder, rename)
    message = refusal(folder, capfd)
    assert f"{len(towers)} tensors are missing" in message
    assert f"{len(towers)} tensors are not of this architecture" in message
    assert "the names begin with 'tower.' where 'model.visual.' is expected" in message


def test_all_names_under_another_prefix_are_refused(folder: Path) -> None:
    change_weights(folder, lambda weights: {"policy." + key: value for key, value in weights.items()})
    message = refusal(folder)
    assert "missing" in message
    assert "all these names begin with 'policy.'" in message


def test_no_prefix_is_blamed_for_another_architecture(folder: Path) -> None:
    change_json(folder / "config.json", model_type="qwen2_vl")
    assert "names begin with" not in refusal(folder)


def test_a_template_that_insists_on_an_image_is_used(folder: Path) -> None:
    template = (folder / "chat_template.jinja").read_text()
    insist = "{% if messages[-1].content | length < 2 %}{{ raise_exception('no image') }}{% endif %}"
    (folder / "chat_template.jinja").write_text(insist + template)
    load_policy(PolicyConfig(model=str(folder)))


def test_a_superfluous_tensor_is_named(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    change_weights(folder, lambda weights: weights | {"value_head.weight": torch.zeros(1, 64)})
    assert "1 tensor is not of this architecture (value_head.weight)" in refusal(folder, capfd)


def test_a_tensor_of_another_shape_is_named_with_both_shapes(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name = stored_name(folder, "layers.1.mlp.down_proj.weight")
    rows, columns = load_file(folder / "model.safetensors")[name].shape
    change_weights(folder, lambda weights: weights | {name: torch.zeros(rows, columns + 2)})
    message = refusal(folder, capfd)
    assert (
        f"1 tensor is of another shape ({LAYER}: [{rows}, {columns + 2}], not [{rows}, {columns}])" in message
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(folder: Path, value: float) -> None:
    name = stored_name(folder, "layers.1.mlp.down_proj.weight")
    change_weights(folder, lambda weights: void(weights[name].view(-1)[7].fill_(value)))
    message = refusal(folder)
    assert "not finite" in message
    assert LAYER in message


@pytest.mark.parametrize("stored", [True, False])
def test_a_tied_head_may_be_stored_or_not(folder: Path, stored: bool) -> None:
    change_json(folder / "config.json", tie_word_embeddings=True)
    embedding = stored_name(folder, "embed_tokens.weight")

    def tie(weights: Weights) -> Weights:
        weights.pop("lm_head.weight", None)
        return weights | ({"lm_head.weight": weights[embedding].clone()} if stored else {})

    change_weights(folder, tie)
    model = load_policy(PolicyConfig(model=str(folder))).model
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_a_head_that_is_not_tied_must_be_stored(folder: Path) -> None:
    change_json(folder / "config.json", tie_word_embeddings=False)
    change_json(
        folder / "config.json",
        text_config=json.loads((folder / "config.json").read_text())["text_config"]
        | {"tie_word_embeddings": False},
    )
    change_weights(folder, lambda weights: void(weights.pop("lm_head.weight", None)))
    assert "lm_head.weight" in refusal(folder)


def test_a_missing_tensor_below_adapters_is_named(folder: Path, tmp_path: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(folder)
    get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(folder)
    load_policy(PolicyConfig(model=str(folder)))
    name = stored_name(folder, "layers.1.mlp.down_proj.weight")
    change_weights(folder, lambda weights: void(weights.pop(name)))
    message = refusal(folder)
    assert "does not load completely" in message
    assert f"({LAYER} missing)" in message


def test_many_names_are_counted() -> None:
    names = {f"layers.{number}.weight" for number in range(1200)}
    info = {"missing_keys": names, "unexpected_keys": set(), "mismatched_keys": set()}
    with pytest.raises(UserError, match=r"1,200 tensors are missing.*and 1,197 more"):
        check_complete("m", info)


class Creates:
    """An object whose pickle creates a folder when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.mkdir, (self.marker,)


def test_a_pickle_with_code_is_one_message_and_is_not_executed(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"a": Creates(tmp_path / "marker")}, folder / "pytorch_model.bin")
    assert "safetensors" in refusal(folder)
    assert not (tmp_path / "marker").exists()


def test_a_pickle_that_is_no_archive_is_one_message(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04nothing")
    assert "could not be loaded" in refusal(folder)


def test_truncated_weights_are_one_message(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    assert "could not be loaded" in refusal(folder)


def test_an_index_with_a_shard_that_does_not_exist_is_one_message(folder: Path) -> None:
    names = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "model-00001-of-00002.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-00001-of-00002.safetensors" in refusal(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_git_lfs_pointer_is_named(folder: Path, name: str) -> None:
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    message = refusal(folder)
    assert f"{name} is a Git LFS pointer" in message
    assert "git lfs pull" in message


@pytest.mark.parametrize(
    "name", ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]
)
@pytest.mark.parametrize("content", ["{", "[]", "null", '"text"', ""])
def test_damaged_json_is_one_message_or_not_needed(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content)
    loads_or_says_why(folder)


@pytest.mark.parametrize("content", ["{", "[]", "null", "{}"])
def test_a_damaged_processor_config_is_one_message_or_not_needed(folder: Path, content: str) -> None:
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (folder / name).exists():
            (folder / name).write_text(content)
    loads_or_says_why(folder)


NO_PLACE = "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ ''.__class__ }}", "cannot be used|no place for the"),
        ("{{ 'Hello' }}", "no place for the question"),
        (NO_PLACE, "no place for the image"),
        (
            NO_PLACE.replace(
                "{{ p.text }}", "{% if p.type == 'image' %}<image>{% else %}{{ p.text }}{% endif %}"
            ),
            "becomes no token|cannot encode an image",
        ),
        ("{% for m in messages %}", "cannot be used"),
        ("{{ raise_exception('no images, please') }}", "no images, please"),
        ("{{ messages[7].content }}", "cannot be used|no place for the"),
        ("{{ 1 / 0 }}", "cannot be used"),
    ],
)
def test_a_template_without_a_place_is_one_message(folder: Path, template: str, reason: str) -> None:
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(UserError, match=reason):
        load_processor(PolicyConfig(model=str(folder)))
    assert "chat" in refusal(folder)


def test_a_folder_without_a_template_is_one_message(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    assert "chat template" in refusal(folder)


def test_a_tokenizer_without_the_image_token_is_one_message(folder: Path) -> None:
    change_json(folder / "config.json", image_token_id=17)
    assert "17" in refusal(folder)


def config_folder(kind: str, folder: Path, **options: Any) -> Path:
    CONFIG_MAPPING[kind](**options).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "kind",
    [
        "florence2",
        "blip-2",
        "pix2struct",
        "mllama",
        "idefics",
        "pi0",
    ],
)
def test_an_architecture_that_cannot_be_sampled_is_refused_before_weights_are_loaded(
    kind: str, tmp_path: Path
) -> None:
    if kind not in CONFIG_MAPPING:
        pytest.skip(f"this version of transformers has no {kind}")
    message = refusal(config_folder(kind, tmp_path))
    assert "is not supported" in message
    assert "Qwen2.5-VL" in message


@pytest.mark.parametrize("kind", [*FAMILIES, "lfm2_vl", "mistral3"])
def test_other_architectures_pass(kind: str, tmp_path: Path) -> None:
    if kind not in CONFIG_MAPPING:
        pytest.skip(f"this version of transformers has no {kind}")
    assert "not supported" not in refusal(config_folder(kind, tmp_path))


def test_what_vllm_samples_is_not_refused_for_its_attention(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_processor(PolicyConfig(model=str(config_folder("mllama", tmp_path))), samples=False)
    assert "not supported" not in str(caught.value)  # it ends because the folder has no processor
