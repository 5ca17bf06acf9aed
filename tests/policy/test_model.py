"""Loading of a policy: names, number format, frozen weights, and one message per mistake."""

from __future__ import annotations

import json
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants, snapshot_download
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, LlamaConfig

from data import Example
from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.errors import UserError
from mm_cpgd.policy import EMBEDDED, Policy, load_policy, load_processor
from mm_cpgd.policy.families import vision_modules


def load(folder: Path | str, **options: Any) -> Policy:
    return load_policy(PolicyConfig(model=str(folder), **options))


def copied(folder: Path, to: Path, leave: tuple[str, ...] = ()) -> Path:
    return Path(shutil.copytree(folder, to / "copy", ignore=shutil.ignore_patterns(*leave)))


def refusal(config: PolicyConfig) -> str:
    """Return the message of the UserError that loading must raise."""
    with pytest.raises(UserError) as caught:
        load_policy(config)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_vision_tower_is_frozen_unless_configured_otherwise(tiny_folder: Path) -> None:
    for frozen in (True, False):
        policy = load(tiny_folder, freeze_vision=frozen)
        (tower,) = vision_modules(policy.model)
        assert all(parameter.requires_grad is not frozen for parameter in tower.parameters())
        assert policy.model.model.language_model.embed_tokens.weight.requires_grad
        assert len(list(tower.parameters())) > 10


def test_a_loaded_policy_is_in_evaluation_mode(tiny_policy: Policy) -> None:
    assert not any(module.training for module in tiny_policy.modules())


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, torch.float32), ({"dtype": "float32"}, torch.float32), ({"dtype": "bfloat16"}, torch.bfloat16)],
)
def test_trained_weights_are_float32_unless_configured_otherwise(
    tiny_folder: Path, tmp_path: Path, options: dict[str, Any], expected: torch.dtype
) -> None:
    half = load(tiny_folder, dtype="bfloat16")
    half.save(tmp_path / "half")
    policy = load(tmp_path / "half", **options)
    assert {parameter.dtype for parameter in policy.parameters()} == {expected}


@pytest.mark.parametrize(("cuda", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_frozen_weights_keep_the_checkpoints_format_on_cuda(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuda: bool, expected: torch.dtype
) -> None:
    load(tiny_folder, dtype="bfloat16").save(tmp_path / "half")
    monkeypatch.setattr("mm_cpgd.policy.model.torch.cuda.is_available", lambda: cuda)
    # It would ask the GPU, which there is not, unless another test has had it asked before.
    monkeypatch.setattr("mm_cpgd.policy.model.has_triton", lambda: False)
    policy = load(tmp_path / "half", lora={"rank": 4})
    frozen = {parameter.dtype for parameter in policy.parameters() if not parameter.requires_grad}
    trained = {parameter.dtype for parameter in policy.parameters() if parameter.requires_grad}
    assert (frozen, trained) == ({expected}, {torch.float32})


def test_dropout_is_off_in_training_mode_too(tiny_folder: Path, tmp_path: Path) -> None:
    folder = copied(tiny_folder, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["attention_dropout"] = 0.5
    (folder / "config.json").write_text(json.dumps(config))
    policy = load(folder)
    assert policy.model.config.text_config.attention_dropout == 0.5
    prompt = [policy.encoder.encode(Example("a", "Why?", "3"))]
    tokens, mask = torch.full((1, 5), 40), torch.ones(1, 5, dtype=torch.bool)
    with torch.no_grad():
        policy.train()
        first, _ = policy(prompt, tokens, mask)
        policy.eval()
        second, _ = policy(prompt, tokens, mask)
    assert torch.equal(first, second)


def gradients_and_calls(policy: Policy, example: Example) -> tuple[dict[str, Tensor], int, bool]:
    """Return all gradients, how often the first layer's attention ran, and whether its tower had a graph."""
    calls: list[int] = []
    graphs: list[bool] = []
    layer = policy.model.model.language_model.layers[0].self_attn
    layer.register_forward_hook(lambda *args: calls.append(1))
    policy.model.model.visual.blocks[-1].register_forward_hook(
        lambda module, inputs, output: graphs.append(output.requires_grad)
    )
    policy.train()
    tokens = torch.arange(30, 42).view(2, 6)
    prompts = [policy.encoder.encode(example)] * 2
    values, _ = policy(prompts, tokens, torch.ones_like(tokens, dtype=torch.bool))
    values.sum().backward()
    gradients = {name: p.grad for name, p in policy.named_parameters() if p.grad is not None}
    return gradients, len(calls), graphs[0]


@pytest.mark.parametrize("options", [{}, {"freeze_vision": False}, {"lora": {"rank": 4}}])
def test_gradient_checkpointing_gives_the_same_gradients(
    tiny_folder: Path, examples: list[Example], options: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    usual, once, _ = gradients_and_calls(load(tiny_folder, **options), examples[0])
    torch.manual_seed(0)
    policy = load(tiny_folder, gradient_checkpointing=True, **options)
    saved, twice, graph = gradients_and_calls(policy, examples[0])
    assert (once, twice) == (1, 2)
    assert graph is (options.get("freeze_vision") is False)
    assert saved.keys() == usual.keys()
    assert any("lora" in name for name in saved) == ("lora" in options)
    for name, gradient in usual.items():
        torch.testing.assert_close(saved[name], gradient, rtol=1e-5, atol=1e-6)


def test_pixel_limits_reach_the_processor(tiny_folder: Path) -> None:
    from PIL import Image

    from data import ImageRef

    large = Example("a", "?", "3", images=(ImageRef("large", lambda: Image.new("RGB", (1120, 1120))),))
    small = Example("b", "?", "3", images=(ImageRef("small", lambda: Image.new("RGB", (28, 28))),))
    policy = load(tiny_folder, min_pixels=112 * 112, max_pixels=280 * 280)
    counts = []
    for example in (large, small):
        prompt = policy.encoder.encode(example)
        counts.append(int((prompt.input_ids == policy.model.config.image_token_id).sum()))
        assert policy.encoder.length(example) == len(prompt)
    assert counts == [100, 16]


def test_one_pixel_limit_leaves_the_other(tiny_folder: Path) -> None:
    before = load_processor(PolicyConfig(model=str(tiny_folder))).image_processor.size
    after = load_processor(PolicyConfig(model=str(tiny_folder), max_pixels=40000)).image_processor.size
    assert after["shortest_edge"] == before["shortest_edge"]
    assert after["longest_edge"] == 40000


def test_contradicting_pixel_limits_are_refused(tiny_folder: Path) -> None:
    message = refusal(PolicyConfig(model=str(tiny_folder), min_pixels=50000, max_pixels=40000))
    assert "50,000" in message
    assert "40,000" in message


def test_pixel_limits_are_saved_with_the_model(tiny_folder: Path, tmp_path: Path) -> None:
    load(tiny_folder, max_pixels=40000).save(tmp_path / "out")
    assert load(tmp_path / "out").processor.image_processor.size["longest_edge"] == 40000


def test_a_saved_policy_loads_with_transformers_and_is_identical(
    tiny_policy: Policy, tmp_path: Path, examples: list[Example]
) -> None:
    tiny_policy.save(tmp_path / "out")
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "out").eval()
    for (name, one), (other_name, other) in zip(
        tiny_policy.model.state_dict().items(), model.state_dict().items(), strict=True
    ):
        assert name == other_name
        assert torch.equal(one, other)
    again = load(tmp_path / "out")
    for example in examples:
        one, other = (policy.encoder.encode(example) for policy in (tiny_policy, again))
        assert torch.equal(one.input_ids, other.input_ids)
    assert not list((tmp_path / "out").glob("*.bin"))


def test_a_tilde_is_the_home_folder(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tiny_folder.parent))
    assert load_processor(PolicyConfig(model=f"~/{tiny_folder.name}")) is not None
    assert "no such folder" in refusal(PolicyConfig(model="~/not-here"))
    assert "no such folder" in refusal(PolicyConfig(model="~nobody-of-this-name/model"))


@pytest.mark.parametrize("name", ["./missing", "/missing/model", "../missing", "runs/missing/final"])
def test_a_missing_folder_is_one_message(name: str) -> None:
    message = refusal(PolicyConfig(model=name))
    assert name in message
    assert "no such folder" in message


def test_an_empty_folder_is_one_message(tmp_path: Path) -> None:
    assert "config.json" in refusal(PolicyConfig(model=str(tmp_path)))


def test_a_text_model_is_one_message(tmp_path: Path) -> None:
    LlamaConfig(num_hidden_layers=1).save_pretrained(tmp_path)
    message = refusal(PolicyConfig(model=str(tmp_path)))
    assert "'llama'" in message
    assert "vision-language model" in message


def test_a_folder_without_a_processor_is_one_message(tiny_folder: Path, tmp_path: Path) -> None:
    folder = copied(tiny_folder, tmp_path, ("*processor*",))
    message = refusal(PolicyConfig(model=str(folder)))
    assert "processor" in message
    assert str(folder) in message


def test_a_folder_without_weights_is_one_message(tiny_folder: Path, tmp_path: Path) -> None:
    folder = copied(tiny_folder, tmp_path, ("*.safetensors",))
    assert "could not be loaded" in refusal(PolicyConfig(model=str(folder)))


def test_damaged_weights_are_one_message(tiny_folder: Path, tmp_path: Path) -> None:
    folder = copied(tiny_folder, tmp_path)
    (folder / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0not a header at all")
    assert "could not be loaded" in refusal(PolicyConfig(model=str(folder)))


def test_a_damaged_config_is_one_message(tiny_folder: Path, tmp_path: Path) -> None:
    folder = copied(tiny_folder, tmp_path)
    (folder / "config.json").write_text("{")
    assert "could not be loaded" in refusal(PolicyConfig(model=str(folder)))


def test_an_unknown_attention_is_one_message(tiny_folder: Path) -> None:
    assert "could not be loaded" in refusal(PolicyConfig(model=str(tiny_folder), attention="no-such"))


def test_a_hub_name_without_a_network_fails_immediately(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    started = time.perf_counter()
    message = refusal(PolicyConfig(model="nobody/no-such-model"))
    assert time.perf_counter() - started < 3
    assert "hf download nobody/no-such-model" in message
    assert "is not reachable" in message


def test_a_cached_hub_model_loads_without_a_network(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(
        "mm_cpgd.policy.model.snapshot_download", partial(snapshot_download, cache_dir=tmp_path)
    )
    cached = tmp_path / "models--somebody--tiny"
    shutil.copytree(tiny_folder, cached / "snapshots" / "abc123")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc123")
    started = time.perf_counter()
    policy = load("somebody/tiny")
    assert time.perf_counter() - started < 3
    assert len(policy.tokenizer) == policy.model.config.text_config.vocab_size


def test_a_missing_embedded_model_says_how_to_build_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EMBEDDED, "embedded:tiny", tmp_path / "missing")
    assert "make tiny" in refusal(PolicyConfig(model="embedded:tiny"))


def test_lora_beside_a_trained_vision_tower_is_refused(tiny_folder: Path) -> None:
    message = refusal(PolicyConfig(model=str(tiny_folder), lora={"rank": 4}, freeze_vision=False))
    assert "policy.freeze_vision=true" in message


@pytest.fixture
def hostile_folder(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model folder with its own code, which creates the file ``marker`` if it is run."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = copied(tiny_folder, tmp_path)
    (folder / "hostile.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w').close()\n")
    own = {
        "config.json": ("AutoConfig", "AutoModelForImageTextToText", "AutoModel"),
        "processor_config.json": ("AutoProcessor", "AutoImageProcessor"),
        "tokenizer_config.json": ("AutoTokenizer",),
    }
    for name, kinds in own.items():
        file = folder / name
        values = json.loads(file.read_text()) if file.exists() else {}
        values["auto_map"] = dict.fromkeys(kinds, "hostile.Hostile")
        values["auto_map"] |= {"AutoTokenizer": [None, "hostile.Hostile"]} if len(kinds) == 1 else {}
        file.write_text(json.dumps(values))
    return folder


@pytest.mark.parametrize("model_type", ["qwen2_5_vl", "unheard_of"])
def test_code_in_a_model_folder_is_not_run(hostile_folder: Path, tmp_path: Path, model_type: str) -> None:
    config = json.loads((hostile_folder / "config.json").read_text())
    (hostile_folder / "config.json").write_text(json.dumps(config | {"model_type": model_type}))
    if model_type == "qwen2_5_vl":  # known to transformers, so the folder's code is not needed
        load(hostile_folder)
    else:
        message = refusal(PolicyConfig(model=str(hostile_folder)))
        assert "trust_remote_code" in message
    assert not (tmp_path / "marker").exists()


def test_code_in_a_model_folder_is_run_with_trust_remote_code(hostile_folder: Path, tmp_path: Path) -> None:
    config = json.loads((hostile_folder / "config.json").read_text())
    (hostile_folder / "config.json").write_text(json.dumps(config | {"model_type": "unheard_of"}))
    refusal(PolicyConfig(model=str(hostile_folder), trust_remote_code=True))
    assert (tmp_path / "marker").exists()


def test_a_disabled_shared_prefix_is_neither_used_nor_reported(tiny_folder: Path) -> None:
    lines: list[str] = []
    policy = load_policy(PolicyConfig(model=str(tiny_folder)), shared_prefix=False, say=lines.append)
    assert (policy.shared_prefix, lines) == (False, [])


def test_an_unsupported_shared_prefix_is_reported_in_one_line(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr("mm_cpgd.policy.families.SHARED_ATTENTION", ("sdpa",))
    config = PolicyConfig(model=str(tiny_folder), attention="eager")
    assert not load_policy(config, say=lines.append).shared_prefix
    (line,) = lines
    assert "policy.attention is eager" in line


def test_every_parameter_belongs_to_the_model(tiny_policy: Policy) -> None:
    assert isinstance(tiny_policy, nn.Module)
    assert all(name.startswith("model.") for name, _ in tiny_policy.named_parameters())
