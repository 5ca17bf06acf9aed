"""The composed loss: closed-form gradients, masking, splitting, metrics."""

import math

import pytest
import torch

from mm_cpgd.algorithms.composition import build_objective
from mm_cpgd.config.recipes import load_recipe, recipe_names
from mm_cpgd.config.schema import AlgorithmConfig
from tests.fakes.closed_forms import GRADIENTS

MAX_TOKENS = 10
LENGTHS = [4, 1, 3, 2]
MASK = torch.arange(4) < torch.tensor(LENGTHS)[:, None]
ADVANTAGES = torch.tensor([1.5, -0.5, -1.0, 0.0], dtype=torch.float64)
# Inside and outside of every bound on either side, for either sign of the advantage.
LOG_RATIO = torch.tensor(
    [[0.05, 0.5, -0.5, 1.5], [0.1, 0, 0, 0], [1.5, -0.4, -0.1, 0], [0.3, -2.0, 0, 0]], dtype=torch.float64
)
OLD = torch.tensor([[-1.0, -2.0, -0.5, -3.0]] * 4, dtype=torch.float64)
# The two highest of the ten tokens' entropies, a fifth of them, are at the second token of rows 0 and 2.
ENTROPY = torch.tensor(
    [[0.1, 2.0, 0.3, 0.4], [0.2, 0, 0, 0], [0.5, 1.5, 0.1, 0], [0.6, 0.7, 0, 0]], dtype=torch.float64
)
KL = {"name": "kl", "coefficient": 0.1}
# Behind the changed picture every token was a little less likely before the update.
GAP = 0.25
BLIND = OLD - GAP


# c = (log π − mean)·(A − mean): log π of the ten tokens sum to −14, A to 4·1.5 − 0.5 − 3 = 2.5, so that c of
# the first row's tokens is 1.25·(log π + 1.4): largest, 1.125, at the third, where log π is −0.5; no other is
# above 1.
TOP_COVARIANCE = (0, 2)


def build(recipe="cpgd", **sections):
    config = AlgorithmConfig(**{**load_recipe(recipe), **sections})
    return build_objective(config, completions=4, max_new_tokens=MAX_TOKENS)


def prepared(objective):
    """Results of ``prepare`` on the whole batch above, (4, 4) each."""
    by_token = ADVANTAGES[:, None].expand(4, 4)
    places = MASK.nonzero(as_tuple=True)
    blind = {"blind_logprobs": BLIND[MASK], "completion": places[0]} if objective.blind.fixed else None
    found = objective.prepare(OLD[MASK], ENTROPY[MASK], by_token[MASK], seed=0, blind=blind)
    empty = torch.full((4, 4), float("nan"), dtype=torch.float64)
    steps = {
        part.where: torch.full((4, 4), 0.5).masked_fill(~MASK, float("nan")) for part in objective.step_parts
    }
    return {name: empty.index_put(places, values) for name, values in found.items()} | steps


def run(objective, rows=slice(None), mask=MASK, **inputs):
    """Loss, gradient of the log-probs and metrics for these rows of the batch above."""
    logprobs = (OLD + LOG_RATIO)[rows].clone().requires_grad_()
    inputs.setdefault("entropy", ENTROPY[rows])
    if objective.needs_reference:
        inputs.setdefault("reference_logprobs", (OLD - 0.3)[rows])
    if objective.blind.compares:
        inputs |= {"blind_logprobs": BLIND[rows], "blind_entropy": ENTROPY[rows]}
    known = {name: values[rows] for name, values in prepared(objective).items()}
    loss, metrics = objective.loss(
        logprobs, OLD[rows], ADVANTAGES[rows], mask[rows], torch.tensor(LENGTHS), prepared=known, **inputs
    )
    (gradient,) = torch.autograd.grad(loss, logprobs)
    return loss.item(), gradient, metrics


def slope(recipe, row, t):
    """d(term − penalty)/dℓ of one token, from the published formulas."""
    ell, a = LOG_RATIO[row, t].item(), ADVANTAGES[row].item()
    if recipe.startswith("d3s") and (row, t) not in ((0, 1), (2, 1)):
        return 0.0  # the two tokens with the largest |A|·H, a fifth of them at the run's beginning
    if recipe in GRADIENTS:
        return GRADIENTS[recipe](LOG_RATIO[row, : LENGTHS[row]].tolist(), t, a, OLD[row, t].item())
    r = math.exp(ell)
    low, high = 0.8, 1.28 if recipe in ("dapo", "forking_tokens", "bnpo", "spo", "knapsack", "spear") else 1.2
    if recipe == "clip_cov":
        low, high = 0.0, 2.0
    stopped = (a > 0 and r > high) or (a < 0 and r < low)
    if recipe == "grpo_dual_clip":
        stopped = stopped or (a < 0 and r > 3)
    if recipe in ("pg", "pgd", "dpo_online", "bvpo", "raft"):
        gradient = a
    elif recipe == "copg":
        gradient = 0.5  # as ``prepared`` says
    elif recipe.startswith("cp"):
        gradient = 0.0 if stopped else a
    elif recipe in ("kl_cov", "f_dpg", "gtpo", "cispo", "hpt"):
        gradient = min(r, 5.0) * a if recipe == "cispo" else r * a
    else:
        gradient = 0.0 if stopped else r * a
    if ("forking" in recipe and ENTROPY[row, t] < 1.5) or (
        recipe == "clip_cov" and (row, t) == TOP_COVARIANCE
    ):
        gradient = 0.0
    if recipe == "kl_cov" and (row, t) == TOP_COVARIANCE:
        gradient -= math.copysign(1.0, ell)
    if recipe == "deepseek_v32":
        # Row 2 has A < 0 and a mean of −ℓ of −1/3, so that it counts. The reference is 0.3 below the old.
        gradient -= 0.001 * r * (ell + 0.3)
    if recipe == "one_shot":
        gradient -= 0.001 * (1 - math.exp(-(ell + 0.3)))
    drift = 0.01 * min(r - 1, 2.0) if recipe == "pgd" or recipe.startswith("cpgd") else 0.0
    return gradient - drift


GROUPED = ("copo", "d3s", "d3s_gspo")


def weight(recipe, row):
    if recipe.startswith("grpo") or recipe in (
        "gspo",
        "sapo",
        "gmpo",
        "deepseek_v32",
        "gdpo",
        "gtpo",
        *GROUPED,
    ):
        return 1 / (len(LENGTHS) * LENGTHS[row])
    if recipe in ("luspo", "f_dpg", "dpo_online", "bvpo", "copg"):
        return 1 / len(LENGTHS)
    if recipe in ("dr_grpo", "bnpo", "dppo", "hpt", "spear", "brpo"):
        return 1 / (len(LENGTHS) * MAX_TOKENS)
    return 1 / sum(LENGTHS)


@pytest.mark.parametrize("recipe", recipe_names())
def test_gradient_equals_the_closed_form(recipe):
    expected = torch.zeros(4, 4, dtype=torch.float64)
    for row, length in enumerate(LENGTHS):
        for t in range(length):
            expected[row, t] = -weight(recipe, row) * slope(recipe, row, t)
    _, gradient, _ = run(build(recipe))
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-14)


def test_cpgd_loss_value_worked_out_by_hand():
    # One completion of two tokens, A = 1: min(0.1, ln 1.2) + ln 1.2 less the drift 0.01·(r − 1 − ln r).
    ell = torch.tensor([[0.1, 0.5]], dtype=torch.float64)
    loss, _ = build().loss(
        ell, torch.zeros(1, 2), torch.ones(1), torch.ones(1, 2, dtype=torch.bool), torch.tensor([2])
    )
    drift = (math.exp(0.1) - 1.1) + (math.exp(0.5) - 1.5)
    assert loss.item() == pytest.approx(-(0.1 + math.log(1.2) - 0.01 * drift) / 2, abs=1e-15)


def test_cpgd_loss_contains_the_drift():
    # Seen in public code: a CPGD loss without it.
    with_drift, without = run(build("cpgd")), run(build("cpg"))
    assert not torch.allclose(with_drift[1], without[1], rtol=0, atol=1e-6)
    assert with_drift[0] > without[0]


@pytest.mark.parametrize("recipe", ["cpgd", "cpg", "pgd", "grpo_dual_clip", "dapo", "rloo"])
def test_gradient_equals_plain_policy_gradient_where_nothing_has_moved(recipe):
    logprobs = OLD.clone().requires_grad_()
    loss, _ = build(recipe, aggregation={"name": "token_mean"}).loss(
        logprobs, OLD, ADVANTAGES, MASK, torch.tensor(LENGTHS)
    )
    (gradient,) = torch.autograd.grad(loss, logprobs)
    expected = -ADVANTAGES[:, None] * MASK / sum(LENGTHS)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("recipe", recipe_names())
def test_splitting_into_micro_batches_leaves_loss_gradient_and_metrics_unchanged(recipe):
    objective = build(recipe, regularizers=[KL])
    reference = OLD - 0.3
    whole = run(objective, reference_logprobs=reference)
    parts = [run(objective, rows, reference_logprobs=reference[rows]) for rows in (slice(0, 1), slice(1, 4))]
    assert sum(part[0] for part in parts) == pytest.approx(whole[0], abs=1e-14)
    torch.testing.assert_close(torch.cat([part[1] for part in parts]), whole[1], rtol=0, atol=1e-14)
    for name, value in whole[2].items():
        combine = {"max": max, "min": min}.get(name.split("/")[0], sum)
        assert combine(part[2][name].item() for part in parts) == pytest.approx(value.item(), abs=1e-14)


@pytest.mark.parametrize("recipe", recipe_names())
@pytest.mark.parametrize("garbage", [float("nan"), float("-inf"), float("inf"), 1e30])
def test_masked_positions_have_no_influence_and_gradient_zero(recipe, garbage):
    others = [part for part in load_recipe(recipe).get("regularizers", []) if part["name"] != "kl"]
    objective = build(recipe, regularizers=[*others, KL])
    clean = run(objective, reference_logprobs=OLD)
    logprobs = torch.where(MASK, OLD + LOG_RATIO, garbage).requires_grad_()
    old, entropy = torch.where(MASK, OLD, garbage), torch.where(MASK, ENTROPY, garbage)
    known = {name: torch.where(MASK, values, garbage) for name, values in prepared(objective).items()}
    blind = (torch.where(MASK, BLIND, garbage), entropy) if objective.blind.compares else (None, None)
    loss, metrics = objective.loss(
        *(logprobs, old, ADVANTAGES, MASK, torch.tensor(LENGTHS)),
        reference_logprobs=old,
        entropy=entropy,
        prepared=known,
        blind_logprobs=blind[0],
        blind_entropy=blind[1],
    )
    (gradient,) = torch.autograd.grad(loss, logprobs)
    assert loss.item() == clean[0]
    assert torch.equal(gradient, clean[1])
    assert all(value.isfinite() for value in metrics.values())


def test_permuting_the_rows_permutes_the_gradient():
    order = [2, 0, 3, 1]
    loss, gradient, _ = run(build())
    shuffled_loss, shuffled_gradient, _ = run(build(), order)
    assert shuffled_loss == pytest.approx(loss, abs=1e-15)
    torch.testing.assert_close(shuffled_gradient, gradient[order], rtol=0, atol=1e-15)


def test_advantages_by_token_equal_advantages_by_completion():
    logprobs = OLD + LOG_RATIO
    by_token = torch.where(MASK, ADVANTAGES[:, None], float("nan"))
    loss, _ = build().loss(logprobs, OLD, by_token, MASK, torch.tensor(LENGTHS))
    assert loss.item() == pytest.approx(run(build())[0], abs=1e-15)


def test_metrics_are_token_means_worked_out_independently():
    _, _, metrics = run(build(), reference_logprobs=OLD - 0.3, entropy=OLD.abs())
    ell = LOG_RATIO[MASK]
    assert metrics["policy_drift"].item() == pytest.approx((ell.exp() - 1 - ell).mean().item(), abs=1e-14)
    assert metrics["ratio"].item() == pytest.approx(ell.exp().mean().item(), abs=1e-14)
    assert metrics["entropy"].item() == pytest.approx(OLD.abs()[MASK].mean().item(), abs=1e-14)
    x = ell + 0.3
    assert metrics["kl"].item() == pytest.approx(((-x).exp() - 1 + x).mean().item(), abs=1e-14)
    # Clipped: 0.5 and 1.5 of the first row (A > 0), −0.4 of the third (A < 0): 3 of 10 tokens.
    assert metrics["clip_fraction"].item() == pytest.approx(0.3, abs=1e-15)
    assert metrics["max/ratio"].item() == pytest.approx(math.exp(1.5), abs=1e-14)
    assert metrics["min/ratio"].item() == pytest.approx(math.exp(-2.0), abs=1e-14)


def test_penalty_metric_is_what_the_regularizers_add_to_the_loss():
    with_drift, without = run(build("cpgd")), run(build("cpg"))
    assert with_drift[2]["penalty"].item() == pytest.approx(with_drift[0] - without[0], abs=1e-15)


def test_metrics_carry_no_gradient():
    _, _, metrics = run(build())
    assert not any(value.requires_grad for value in metrics.values())


def test_rows_without_tokens_are_neutral_in_every_reduction():
    loss, _, metrics = run(build(), slice(0, 1), mask=torch.zeros_like(MASK))
    assert loss == 0.0
    assert metrics["max/ratio"].item() == -math.inf
    assert metrics["min/ratio"].item() == math.inf
    assert metrics["policy_drift"].item() == 0.0


@pytest.mark.parametrize("recipe", ["cpgd", "cpgd_equal", "cpgd_clip_filter", "cpg", "pgd", "pg"])
def test_log_ratio_objectives_stay_finite_when_the_policy_has_diverged(recipe):
    logprobs = torch.tensor([[-500.0, 0.0]], requires_grad=True)
    old = torch.tensor([[0.0, -500.0]])
    for advantage in (1.0, -1.0):
        loss, metrics = build(recipe).loss(
            logprobs, old, torch.tensor([advantage]), torch.ones(1, 2, dtype=torch.bool), torch.tensor([2])
        )
        (gradient,) = torch.autograd.grad(loss, logprobs)
        assert gradient.isfinite().all()
        assert all(value.isfinite() for value in metrics.values())


def test_half_precision_log_probs_are_aggregated_in_float32():
    # 1,000 completions of 3 tokens, every term 1: bfloat16 has neither 3,000 nor 1/3,000.
    zeros, ones = torch.zeros(1000, 3, dtype=torch.bfloat16), torch.ones(1000, 3, dtype=torch.bool)
    objective = build("grpo", aggregation={"name": "token_mean"})
    loss, _ = objective.loss(zeros, zeros, torch.ones(1000), ones, torch.full((1000,), 3))
    assert loss.dtype is torch.float32
    assert loss.item() == pytest.approx(-1.0, abs=1e-6)


def test_kl_needs_a_reference_and_says_so():
    objective = build(regularizers=[KL])
    assert objective.needs_reference
    with pytest.raises(ValueError, match="needs reference_logprobs"):
        run(objective, reference_logprobs=None)


def test_without_kl_no_reference_is_needed():
    assert not build().needs_reference


def test_a_mask_that_is_not_bool_is_refused():
    with pytest.raises(TypeError, match="mask must be bool"):
        run(build(), mask=MASK.long())


def test_keep_is_all_without_selection_and_the_intersection_with_several():
    accuracy = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    assert build().keep(accuracy, accuracy).tolist() == [True] * 3
    both = build(selection=[{"name": "accuracy_filter", "low": 0.0}, {"name": "dynamic_sampling"}])
    assert both.keep(accuracy, accuracy).tolist() == [False, True, False]


def test_shape_adds_the_penalty_to_every_reward_and_leaves_the_unscored_alone():
    rewards = torch.tensor([[1.0, 1.0], [0.5, float("nan")]])
    shaped = build("dapo").shape(rewards, torch.tensor([3, 9, 10, 10]), MAX_TOKENS)
    # Buffer 2 of 10 tokens: nothing at 3, half at 9, all at 10.
    torch.testing.assert_close(
        shaped, torch.tensor([[1.0, 0.5], [-0.5, float("nan")]]), rtol=0, atol=1e-7, equal_nan=True
    )


def test_shape_without_shaping_returns_the_rewards():
    rewards = torch.tensor([[1.0, 0.0]])
    assert torch.equal(build().shape(rewards, torch.tensor([1, 2]), MAX_TOKENS), rewards)


def test_advantages_are_those_of_the_recipe():
    rewards = torch.tensor([[3.0, 1.0, 2.0]], dtype=torch.float64)
    assert build("rloo").advantages(rewards).tolist() == [[1.5, -1.5, 0.0]]


def test_a_token_weight_of_every_step_is_computed_from_the_current_policy():
    # Of row 2, with A = −1, the mean of −ℓ is −1/3 here and 1 after a further step; no other row has both.
    objective = build("grpo", token_weights=[{"name": "off_policy_mask", "delta": 0.5}])
    assert objective.prepared_parts == ()
    assert run(objective)[2]["token_weight"].item() == pytest.approx(1.0)
    inputs = ADVANTAGES, MASK, torch.tensor(LENGTHS)
    _, metrics = objective.loss(OLD - 1.0, OLD, *inputs)
    # Rows 1 and 2 have A < 0, and 1 and 3 of the ten tokens.
    assert metrics["token_weight"].item() == pytest.approx(0.6)
