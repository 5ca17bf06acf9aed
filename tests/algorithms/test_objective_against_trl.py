"""The composed losses against those of TRL, an independent implementation, on random tensors."""

from collections import defaultdict
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from mm_cpgd.algorithms.composition import build_objective
from mm_cpgd.config.recipes import load_recipe
from mm_cpgd.config.schema import AlgorithmConfig

N, T = 6, 9


def batch():
    generator = torch.Generator().manual_seed(7)
    draw = lambda: torch.randn(N, T, generator=generator, dtype=torch.float64)  # noqa: E731
    old = -draw().abs() - 0.5
    lengths = torch.tensor([9, 1, 4, 7, 2, 5])
    return {
        "logprobs": (old + 0.9 * draw()).requires_grad_(),
        "old": old,
        "reference": old + 0.3 * draw(),
        "entropy": draw().abs().requires_grad_(),
        "advantages": torch.randn(N, generator=generator, dtype=torch.float64),
        "mask": torch.arange(T) < lengths[:, None],
        "lengths": lengths,
    }


def trl_gradient(trainer, data, loss_type, of="logprobs", **settings):
    """The gradient of GRPOTrainer._compute_loss, called on a stand-in that carries only what it reads.

    Settings are the stand-in's attributes where they differ from plain GRPO; TRL's names.
    """
    accelerator = SimpleNamespace(
        gather=lambda x: x,
        pad_across_processes=lambda x, **_: x,
        sync_gradients=False,
        gather_for_metrics=lambda x: x,
        reduce=lambda x, reduction=None: x,
        num_processes=1,
    )
    stand_in = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (data["logprobs"], data["entropy"], None),
        _metrics={"train": defaultdict(list)},
        _entropy_bonus_enabled=False,
        accelerator=accelerator,
        args=SimpleNamespace(
            delta=settings.pop("delta", None),
            use_bias_correction_kl=settings.pop("use_bias_correction_kl", False),
            steps_per_generation=1,
            # As float64: torch.where would make Python's numbers float32.
            sapo_temperature_pos=torch.tensor(1.0, dtype=torch.float64),
            sapo_temperature_neg=torch.tensor(1.05, dtype=torch.float64),
        ),
        aux_loss_enabled=False,
        beta=0.0,
        current_gradient_accumulation_steps=1,
        epsilon_high=0.2,
        epsilon_low=0.2,
        importance_sampling_level="token",
        loss_type=loss_type,
        max_completion_length=T,
        model=SimpleNamespace(training=True),
        off_policy_mask_threshold=None,
        top_entropy_quantile=1.0,
        use_adaptive_entropy=False,
        use_vllm=False,
    )
    vars(stand_in).update(settings)
    stand_in.get_off_policy_mask = trainer.get_off_policy_mask
    stand_in.get_high_entropy_mask = partial(trainer.get_high_entropy_mask, stand_in)
    inputs = {
        "prompt_ids": torch.zeros(N, 1),
        "prompt_mask": torch.ones(N, 1),
        "completion_ids": torch.zeros(N, T),
        "completion_mask": data["mask"].long(),
        "advantages": data["advantages"],
        "old_per_token_logps": data["old"],
        "ref_per_token_logps": data["reference"],
        "num_items_in_batch": data["lengths"].sum().double(),
    }
    loss = trainer._compute_loss(stand_in, stand_in.model, inputs)
    return torch.autograd.grad(loss, data[of])[0]


def own_gradient(data, recipe, of="logprobs", **sections):
    """The gradient of the recipe's loss; sections of the algorithm's config replace the recipe's."""
    config = AlgorithmConfig(**{**load_recipe(recipe), **sections})
    objective = build_objective(config, completions=3, max_new_tokens=T)
    mask = data["mask"]
    by_token = data["advantages"][:, None].expand(N, T)
    flat = (values.detach()[mask] for values in (data["old"], data["entropy"], by_token))
    prepared = {}
    for name, values in objective.prepare(*flat, seed=0).items():
        prepared[name] = torch.zeros(N, T, dtype=torch.float64)
        prepared[name][mask] = values
    loss, _ = objective.loss(
        *(data[key] for key in ("logprobs", "old", "advantages", "mask", "lengths", "reference")),
        entropy=data["entropy"],
        prepared=prepared,
    )
    return torch.autograd.grad(loss, data[of])[0]


@pytest.fixture(scope="module")
def trainer():
    return pytest.importorskip("trl.trainer.grpo_trainer").GRPOTrainer


# TRL's "bnpo" is the token mean of a micro-batch and has nothing to do with BNPO's advantages; its
# epsilon_high of "cispo" is the whole bound, 1 + ε_high here.
LOSSES = {
    "grpo": ("grpo", {}),
    "grpo_dual_clip": ("grpo", {"delta": 3.0}),
    "dr_grpo": ("dr_grpo", {}),
    "dapo": ("dapo", {"epsilon_high": 0.28}),
    "rloo": ("bnpo", {}),
    "cispo": ("cispo", {"epsilon_high": 5.0}),
    "sapo": ("sapo", {}),
    "gspo": (
        "grpo",
        {"epsilon_low": 3e-4, "epsilon_high": 4e-4, "importance_sampling_level": "sequence"},
    ),
}


def assert_same(actual, expected):
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("recipe", LOSSES)
@pytest.mark.parametrize("beta", [0.0, 0.04])
def test_gradient_equals_that_of_trl(trainer, recipe, beta):
    data, (loss_type, settings) = batch(), LOSSES[recipe]
    regularizers = [{"name": "kl", "coefficient": beta}] if beta else []
    assert_same(
        own_gradient(data, recipe, regularizers=regularizers),
        trl_gradient(trainer, data, loss_type, beta=beta, **settings),
    )


def test_gmpo_equals_that_of_trls_gmpo_trainer():
    gmpo = pytest.importorskip("trl.experimental.gmpo").GMPOTrainer
    data = batch()
    expected = trl_gradient(gmpo, data, "grpo", epsilon_low=0.4, epsilon_high=0.4)
    assert ((expected == 0) & data["mask"]).sum() > 3
    assert_same(own_gradient(data, "gmpo"), expected)


@pytest.mark.parametrize("beta", [0.04, 1.0])
def test_unbiased_kl_equals_trls_bias_correction(trainer, beta):
    data = batch()
    own = own_gradient(
        data, "grpo", regularizers=[{"name": "kl", "coefficient": beta, "gradient": "unbiased"}]
    )
    assert_same(own, trl_gradient(trainer, data, "grpo", beta=beta, use_bias_correction_kl=True))


def test_the_off_policy_mask_equals_trls(trainer):
    data = batch()
    expected = trl_gradient(trainer, data, "grpo", off_policy_mask_threshold=0.05)
    assert 1 <= (expected.abs().sum(1) == 0).sum() < N
    assert_same(
        own_gradient(data, "grpo", token_weights=[{"name": "off_policy_mask", "delta": 0.05}]), expected
    )


@pytest.mark.parametrize("bound", [0.3, 3e-4])
def test_luspo_equals_trls_loss_type_luspo(trainer, bound):
    data = batch()
    settings = {"epsilon_low": bound, "epsilon_high": bound, "importance_sampling_level": "sequence"}
    surrogate = {"name": "gspo", "epsilon_low": bound, "epsilon_high": bound}
    own = own_gradient(data, "luspo", surrogate=surrogate)
    assert_same(own, trl_gradient(trainer, data, "luspo", **settings))


def test_gspo_within_and_beyond_wide_bounds_equals_trls(trainer):
    # The paper's bounds clip nearly every completion of a random batch; these leave some whole.
    data = batch()
    surrogate = {"name": "gspo", "epsilon_low": 0.3, "epsilon_high": 0.3}
    settings = {"epsilon_low": 0.3, "epsilon_high": 0.3, "importance_sampling_level": "sequence"}
    expected = trl_gradient(trainer, data, "grpo", **settings)
    assert 1 <= (expected.abs().sum(1) == 0).sum() < N
    assert_same(own_gradient(data, "gspo", surrogate=surrogate), expected)


def test_token_mean_of_the_recipe_bnpo_equals_trls_loss_type_bnpo(trainer):
    data = batch()
    own = own_gradient(data, "bnpo", aggregation={"name": "token_mean"})
    assert_same(own, trl_gradient(trainer, data, "bnpo", epsilon_high=0.28))


def test_forking_tokens_are_those_that_trl_keeps(trainer):
    data = batch()
    expected = trl_gradient(trainer, data, "dapo", epsilon_high=0.28, top_entropy_quantile=0.2)
    assert (expected != 0).sum() < 8
    assert_same(own_gradient(data, "forking_tokens"), expected)


@pytest.mark.parametrize("of", ["logprobs", "entropy"])
def test_entropy_bonus_equals_trls_with_a_token_mean(trainer, of):
    data = batch()
    own = own_gradient(data, "dapo", of, regularizers=[{"name": "entropy_bonus", "coefficient": 0.1}])
    settings = {"epsilon_high": 0.28, "_entropy_bonus_enabled": True, "entropy_coef": 0.1}
    assert_same(own, trl_gradient(trainer, data, "dapo", of, **settings))
