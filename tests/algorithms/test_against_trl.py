"""The composed losses against those of TRL, an independent implementation, on random tensors."""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

from mm_cpgd.algorithms.objective import build_objective
from mm_cpgd.algorithms.recipes import load_recipe
from mm_cpgd.config import AlgorithmConfig

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
        "advantages": torch.randn(N, generator=generator, dtype=torch.float64),
        "mask": torch.arange(T) < lengths[:, None],
        "lengths": lengths,
    }


def trl_gradient(trainer, data, loss_type, epsilon_high, beta, delta):
    """The gradient of GRPOTrainer._compute_loss, called on a stand-in that carries only what it reads."""
    accelerator = SimpleNamespace(
        gather=lambda x: x,
        gather_for_metrics=lambda x: x,
        reduce=lambda x, reduction=None: x,
        num_processes=1,
    )
    stand_in = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (data["logprobs"], torch.zeros(N, T), None),
        _metrics={"train": defaultdict(list)},
        _entropy_bonus_enabled=False,
        accelerator=accelerator,
        args=SimpleNamespace(delta=delta, use_bias_correction_kl=False, steps_per_generation=1),
        aux_loss_enabled=False,
        beta=beta,
        current_gradient_accumulation_steps=1,
        epsilon_high=epsilon_high,
        epsilon_low=0.2,
        importance_sampling_level="token",
        loss_type=loss_type,
        max_completion_length=T,
        model=SimpleNamespace(training=True),
        off_policy_mask_threshold=None,
        top_entropy_quantile=1.0,
        use_vllm=False,
    )
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
    return torch.autograd.grad(loss, data["logprobs"])[0]


@pytest.fixture(scope="module")
def trainer():
    return pytest.importorskip("trl.trainer.grpo_trainer").GRPOTrainer


@pytest.mark.parametrize(
    ("recipe", "loss_type", "epsilon_high", "delta"),
    [
        ("grpo", "grpo", 0.2, None),
        ("grpo_dual_clip", "grpo", 0.2, 3.0),
        ("dr_grpo", "dr_grpo", 0.2, None),
        ("dapo", "dapo", 0.28, None),
        ("rloo", "bnpo", 0.2, None),
    ],
)
@pytest.mark.parametrize("beta", [0.0, 0.04])
def test_gradient_equals_that_of_trl(trainer, recipe, loss_type, epsilon_high, delta, beta):
    data = batch()
    regularizers = [{"name": "kl", "coefficient": beta}] if beta else []
    config = AlgorithmConfig(**{**load_recipe(recipe), "regularizers": regularizers})
    objective = build_objective(config, completions=3, max_new_tokens=T)
    loss, _ = objective.loss(
        data["logprobs"], data["old"], data["advantages"], data["mask"], data["lengths"], data["reference"]
    )
    (gradient,) = torch.autograd.grad(loss, data["logprobs"])
    expected = trl_gradient(trainer, data, loss_type, epsilon_high, beta, delta)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-9)
