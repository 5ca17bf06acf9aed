"""Log-probabilities behind changed pictures in the learner: declared, independent of micro-batches, saved."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mm_cpgd.checkpoint.serialization import load_state, save_state
from mm_cpgd.policy import Policy
from mm_cpgd.policy.visual.changed import PictureChange, UnknownPixels
from mm_cpgd.training.experience import Experience
from tests.fakes.learning import assert_same, gradient, halves, learner


def fresh(rows: Experience) -> Experience:
    return Experience.from_state(rows.state(), rows.prompts)


@pytest.mark.parametrize("recipe", ["papo", "papo_both", "vppo", "pgpo"])
def test_micro_batches_leave_the_gradient_unchanged(policy: Policy, whole: Experience, recipe: str) -> None:
    expected, metrics = gradient(policy, whole, recipe)
    found, others = gradient(policy, whole, recipe, tokens=80)
    if recipe == "pgpo":
        # Scaling a completion's dependences to 0 … 1 enlarges rounding where they hardly differ.
        largest = max(float(value.abs().max()) for value in expected.values())
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=0, atol=1e-4 * largest, msg=name)
    else:
        assert_same(found, expected)
    for metric in (metrics, others):
        del metric["seconds/blind"]
    assert others == pytest.approx(metrics, rel=1e-4, abs=1e-6)
    assert metrics["policy/visual_kl"] > 0


def test_the_blind_values_are_those_of_the_policy_behind_the_changed_prompts(
    policy: Policy, whole: Experience
) -> None:
    rows = fresh(whole)
    made, _ = learner(policy, "papo")
    made.prepare(rows, 3)
    assert rows.blind_logprobs is not None
    changed = made.blind.prompts(rows, 3)
    for row in range(len(rows)):
        prompt = [changed[int(rows.prompt_of[row])]]
        with torch.no_grad():
            alone, _ = policy(prompt, rows.tokens[row : row + 1], rows.mask[row : row + 1])
        torch.testing.assert_close(rows.blind_logprobs[row : row + 1], alone, rtol=0, atol=2e-5)
    # Rows about a text alone have the same values behind both; those about an image have others.
    seen = [bool(prompt.vision) for prompt in rows.prompts]
    assert any(seen)
    with torch.no_grad():
        plain, _ = policy([rows.prompts[p] for p in rows.prompt_of], rows.tokens, rows.mask)
    differs = (plain - rows.blind_logprobs).abs().amax(1) > 1e-3
    assert differs.tolist() == [seen[p] for p in rows.prompt_of.tolist()]


def test_recipes_without_such_parts_run_no_blind_pass(
    policy: Policy, whole: Experience, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = fresh(whole)
    made, _ = learner(policy, "cpgd")
    monkeypatch.setattr(made.blind, "prompts", None)
    (metrics,) = made.update(rows, iteration=1)
    assert rows.blind_logprobs is None
    assert "policy/visual_kl" not in metrics


def test_the_metric_is_measured_when_due_and_leaves_the_gradient_alone(
    policy: Policy, whole: Experience
) -> None:
    expected, _ = gradient(policy, whole, "cpgd")
    made, recorder = learner(policy, "cpgd")
    made.blind.every = 2
    (first,) = made.update(fresh(whole), iteration=1)
    (second,) = made.update(fresh(whole), iteration=2)
    assert first["policy/visual_kl"] > 0
    assert "policy/visual_kl" not in second
    assert_same(recorder.steps[0], expected)


def test_a_model_whose_pictures_cannot_be_changed_trains_without_the_metric(
    policy: Policy, whole: Experience, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = learner(policy, "cpgd")
    made.blind.every = 1

    def refuse(*_: object) -> None:
        raise UnknownPixels("its processor gives pixels of shape (2, 5)")

    monkeypatch.setattr(made.blind, "prompts", refuse)
    with pytest.warns(UserWarning, match="visual_kl is not measured: its processor gives"):
        (first,) = made.update(fresh(whole), iteration=1)
    (second,) = made.update(fresh(whole), iteration=2)
    assert not {"policy/visual_kl", "seconds/blind"} & (first.keys() | second.keys())


def test_a_measured_value_is_the_objectives_where_all_prompts_are_measured(
    policy: Policy, whole: Experience
) -> None:
    _, known = gradient(policy, whole, "papo")
    made, _ = learner(policy, "cpgd")
    made.blind.every = 1
    (measured,) = made.update(fresh(whole), iteration=1)
    texts = sum(
        int(whole.mask[whole.prompt_of == number].sum())
        for number, prompt in enumerate(whole.prompts)
        if not prompt.vision
    )
    # The objective's mean counts tokens of prompts without a picture, as 0.
    tokens = int(whole.mask.sum())
    assert measured["policy/visual_kl"] * (tokens - texts) == pytest.approx(
        known["policy/visual_kl"] * tokens, rel=1e-3
    )


def test_another_iteration_and_another_change_draw_other_pictures(policy: Policy, whole: Experience) -> None:
    made, _ = learner(policy, "papo")
    one, again, other = (made.blind.prompts(whole, number) for number in (1, 1, 2))
    pixels = [prompts[0].vision.get("pixel_values") for prompts in (one, again, other)]
    assert pixels[0] is not None
    assert pixels[1] is not None
    assert pixels[2] is not None
    assert torch.equal(pixels[0], pixels[1])
    assert not torch.equal(pixels[0], pixels[2])
    made.blind.change = PictureChange("blank")
    assert not torch.equal(pixels[0], made.blind.prompts(whole, 1)[0].vision["pixel_values"])


def test_blind_values_are_saved_and_not_computed_again(
    policy: Policy, whole: Experience, tmp_path: Path
) -> None:
    rows = halves(whole)
    made, _ = learner(policy, "vppo")
    made.prepare(rows, 1)
    save_state(tmp_path / "rows.safetensors", rows.state())
    again = Experience.from_state(load_state(tmp_path / "rows.safetensors"), rows.prompts)
    assert rows.blind_logprobs is not None
    assert again.blind_logprobs is not None
    torch.testing.assert_close(again.blind_logprobs, rows.blind_logprobs)
    kept = again.blind_logprobs
    made.prepare(again, 1)
    assert again.blind_logprobs is kept


def test_a_resumed_update_draws_the_changed_prompts_again(policy: Policy, whole: Experience) -> None:
    rows = fresh(whole)
    made, _ = learner(policy, "papo_both")
    made.prepare(rows, 1)
    again = Experience.from_state(rows.state(), rows.prompts)
    assert again.blind_prompts is None
    made.prepare(again, 1)
    assert rows.blind_prompts
    assert again.blind_prompts
    for one, other in zip(rows.blind_prompts, again.blind_prompts, strict=True):
        assert all(torch.equal(one.vision[name], other.vision[name]) for name in one.vision)
