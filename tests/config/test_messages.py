"""Messages about invalid configs."""

from __future__ import annotations

from tests.fakes.configs import Write, message


def test_an_unknown_key_names_the_nearest_and_lists_the_allowed_ones(write: Write) -> None:
    text = message(write("checkpoint: {evry: 3}\n"))
    assert "checkpoint.evry: unknown key; did you mean every? Allowed in checkpoint: every, keep" in text


def test_a_key_of_another_section_is_reported_with_that_section(write: Write) -> None:
    assert "did you mean training.learning_rate?" in message(write("learning_rate: 1e-6\n"))


def test_a_wrong_type_names_place_value_and_what_is_allowed(write: Write) -> None:
    text = message(write("rollout: {prompts: many}\n"))
    assert "rollout.prompts: 'many' is not allowed here; should be a valid integer" in text


def test_the_branches_of_a_union_share_one_line(write: Write) -> None:
    text = message(write(), "policy.lora.targets=7")
    assert text.count("policy.lora.targets") == 1
    assert "a valid list or 'all-linear'" in text


def test_all_mistakes_are_listed_together(write: Write) -> None:
    text = message(
        write("sed: 1\ntraining: {iterations: 0}\nrewards: [{rule: a, wait: 1}]\n"), "data.train=null"
    )
    assert "4 mistakes" in text
    for part in ("sed: unknown", "training.iterations: 0", "rewards.0.wait: unknown", "data.train: None"):
        assert part in text


def test_a_missing_section_lists_its_required_keys(write: Write) -> None:
    text = message(write("seed: 1\n", base="algorithm: {}\npolicy: {}\n"))
    assert "data: missing (a section with train)" in text
    assert "policy.model: missing (hub name, folder, or embedded:tiny)" in text
