"""Adapters: placement, effect, reference policy, and merging into saved weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForImageTextToText

from data import Example
from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.errors import UserError
from mm_cpgd.policy import Policy, load_policy
from mm_cpgd.policy.lora.layers import linear_layers, merged_weights


def adapted(folder: Path, dtype: str = "float32", **lora: object) -> Policy:
    """Return a policy with adapters that are not zero, as after training."""
    torch.manual_seed(0)
    options = {"rank": 4, "alpha": 8, **lora}
    policy = load_policy(PolicyConfig.model_validate({"model": str(folder), "dtype": dtype, "lora": options}))
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return policy


def logprobs(policy: Policy, examples: list[Example]) -> Tensor:
    prompts = [policy.encoder.encode(example) for example in examples]
    tokens = torch.arange(40, 40 + 6 * len(prompts)).view(len(prompts), 6)
    with torch.no_grad():
        values, _ = policy(prompts, tokens, torch.ones_like(tokens, dtype=torch.bool))
    return values


def test_adapters_of_a_bfloat16_model_are_float32(tiny_folder: Path) -> None:
    policy = adapted(tiny_folder, "bfloat16")
    trained = {p.dtype for p in policy.parameters() if p.requires_grad}
    assert (trained, policy.model.lm_head.weight.dtype) == ({torch.float32}, torch.bfloat16)


def test_adapters_start_from_the_same_values_whatever_the_format_of_the_model(tiny_folder: Path) -> None:
    values = []
    for dtype in ("float32", "bfloat16"):
        torch.manual_seed(3)
        policy = adapted(tiny_folder, dtype)
        values.append([value for name, value in policy.named_parameters() if ".lora_" in name])
    assert all(torch.equal(one, other) for one, other in zip(*values, strict=True))
    assert any(value.any() for value in values[0])


def test_only_the_language_model_gets_adapters(tiny_folder: Path) -> None:
    policy = adapted(tiny_folder)
    trained = [name for name, parameter in policy.named_parameters() if parameter.requires_grad]
    assert all(".lora_" in name and ".language_model.layers." in name for name in trained)
    # Four layers of q, k, v, o, gate, up, down, each with its A and B.
    assert len(trained) == 4 * 7 * 2


def test_targets_choose_the_layers(tiny_folder: Path) -> None:
    policy = adapted(tiny_folder, targets=["q_proj", "v_proj"])
    trained = {name.split(".")[-4] for name, p in policy.named_parameters() if p.requires_grad}
    assert trained == {"q_proj", "v_proj"}


def test_an_unknown_target_lists_the_known_ones(tiny_folder: Path) -> None:
    with pytest.raises(UserError, match=r"'query'.*down_proj, gate_proj, k_proj") as caught:
        adapted(tiny_folder, targets=["query"])
    assert "qkv" not in str(caught.value)  # the vision tower's


def test_fresh_adapters_change_nothing(
    tiny_folder: Path, tiny_policy: Policy, examples: list[Example]
) -> None:
    policy = load_policy(PolicyConfig.model_validate({"model": str(tiny_folder), "lora": {}}))
    torch.testing.assert_close(logprobs(policy, examples), logprobs(tiny_policy, examples), rtol=0, atol=1e-6)


def test_the_reference_is_the_policy_without_adapters(
    tiny_folder: Path, tiny_policy: Policy, examples: list[Example]
) -> None:
    policy = adapted(tiny_folder)
    policy.keep_reference()
    assert policy.reference is None
    moved = logprobs(policy, examples)
    with policy.as_reference() as reference:
        base = logprobs(reference, examples)
    assert (moved - base).abs().max() > 0.1
    torch.testing.assert_close(base, logprobs(tiny_policy, examples), rtol=0, atol=1e-6)
    assert torch.equal(logprobs(policy, examples), moved)


def test_saving_merges_and_leaves_the_live_policy_alone(
    tiny_folder: Path, tmp_path: Path, examples: list[Example]
) -> None:
    policy = adapted(tiny_folder)
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    policy.save(tmp_path / "out")
    after = policy.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not (tmp_path / "out" / "adapter_config.json").exists()
    again = load_policy(PolicyConfig(model=str(tmp_path / "out")))
    torch.testing.assert_close(logprobs(again, examples), logprobs(policy, examples), rtol=0, atol=1e-5)


def test_biases_beside_adapters_are_saved(tiny_folder: Path, tmp_path: Path) -> None:
    policy = adapted(tiny_folder)
    bias = policy.model.model.language_model.layers[1].self_attn.q_proj.base_layer.bias
    with torch.no_grad():
        bias.normal_()
    policy.save(tmp_path / "out")
    saved = load_file(tmp_path / "out" / "model.safetensors")
    assert saved.keys() == load_file(tiny_folder / "model.safetensors").keys()
    (own,) = (value for name, value in saved.items() if name.endswith("layers.1.self_attn.q_proj.bias"))
    assert torch.equal(own, bias)


def test_a_merged_folder_has_the_plain_models_weights(tiny_folder: Path, tmp_path: Path) -> None:
    policy = adapted(tiny_folder)
    policy.save(tmp_path / "out")
    plain = AutoModelForImageTextToText.from_pretrained(tiny_folder).state_dict()
    merged = AutoModelForImageTextToText.from_pretrained(tmp_path / "out").state_dict()
    assert plain.keys() == merged.keys()
    changed = {name for name in plain if not torch.equal(plain[name], merged[name])}
    assert all(".language_model.layers." in name and "_proj.weight" in name for name in changed)
    assert len(changed) == 4 * 7
    name = "model.language_model.layers.2.mlp.up_proj"
    own = dict(policy.model.named_parameters())
    product = own[f"{name}.lora_B.default.weight"] @ own[f"{name}.lora_A.default.weight"]
    wanted = plain[f"{name}.weight"] + 8 / 4 * product.detach()
    torch.testing.assert_close(merged[f"{name}.weight"], wanted, rtol=0, atol=1e-6)


def test_half_precision_weights_are_merged_before_they_are_rounded(tiny_folder: Path, tmp_path: Path) -> None:
    policy = adapted(tiny_folder, dtype="bfloat16")
    policy.save(tmp_path / "out")
    name = "model.language_model.layers.0.mlp.up_proj"
    own = dict(policy.model.named_parameters())
    product = own[f"{name}.lora_B.default.weight"] @ own[f"{name}.lora_A.default.weight"]
    wanted = (own[f"{name}.base_layer.weight"].float() + 2 * product).bfloat16()
    merged = AutoModelForImageTextToText.from_pretrained(tmp_path / "out").state_dict()
    assert merged[f"{name}.weight"].dtype == torch.bfloat16
    assert torch.equal(merged[f"{name}.weight"], wanted)


def test_vision_layers_get_adapters_by_choice(tiny_folder: Path) -> None:
    policy = adapted(tiny_folder, vision=True)
    trained = [name for name, parameter in policy.named_parameters() if parameter.requires_grad]
    assert all(".lora_" in name for name in trained)
    assert {name.split(".")[2] for name in trained} == {"visual", "language_model"}
    assert not policy.vision_cache.frozen


def test_full_training_of_the_vision_tower_beside_adapters_is_refused(tiny_folder: Path) -> None:
    config = {"model": str(tiny_folder), "lora": {}, "freeze_vision": False}
    with pytest.raises(UserError, match=r"policy\.lora\.vision=true"):
        load_policy(PolicyConfig.model_validate(config))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dora_starts_from_the_norms_of_the_weights(tiny_folder: Path, dtype: str) -> None:
    policy = load_policy(
        PolicyConfig.model_validate({"model": str(tiny_folder), "dtype": dtype, "lora": {"dora": True}})
    )
    layer = policy.model.model.language_model.layers[1].mlp.down_proj
    norms = layer.lora_magnitude_vector["default"].weight
    assert norms.requires_grad
    expected = layer.base_layer.weight.float().square().sum(1).sqrt()
    torch.testing.assert_close(norms.data, expected, rtol=1e-6, atol=0)


def test_dora_is_merged_by_its_formula(tiny_folder: Path) -> None:
    policy = adapted(tiny_folder, dora=True)
    name = "model.language_model.layers.2.mlp.up_proj"
    layer = policy.model.get_submodule(name)
    layer.lora_magnitude_vector["default"].weight.data *= 1.5
    moved = layer.base_layer.weight + 2 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    norms = 1.5 * layer.base_layer.weight.norm(dim=1, keepdim=True)
    expected = norms * moved / moved.norm(dim=1, keepdim=True)
    torch.testing.assert_close(merged_weights(policy.model)[f"{name}.weight"], expected.detach())


def test_projections_that_torch_reads_itself_get_no_adapter(tiny_folder: Path) -> None:
    model = load_policy(PolicyConfig(model=str(tiny_folder))).model
    model.model.visual.pooling = torch.nn.MultiheadAttention(8, 2)
    assert not any("pooling" in name for name in linear_layers(model, vision=True))
    assert any("visual" in name for name in linear_layers(model, vision=True))
