"""Memories of parts: what they keep, how they are shared, and where they are saved."""

import torch

from mm_cpgd.algorithms.inputs.memory import RowTable
from mm_cpgd.algorithms.inputs.outcomes import Outcomes
from tests.fakes.objectives import build, message


def test_a_row_has_the_default_until_it_is_set():
    table = RowTable(p=0.5, n=0.0)
    table.set("p", torch.tensor([3, 1]), torch.tensor([1.0, 0.25]))
    assert table.get("p", torch.tensor([0, 1, 3, 7])).tolist() == [0.5, 0.25, 1.0, 0.5]
    assert table.get("n", torch.tensor([3])).tolist() == [0]


def test_a_saved_table_is_a_copy():
    table = RowTable(p=0.5)
    table.set("p", torch.tensor([1]), torch.tensor([1.0]))
    saved = table.state_dict()
    table.set("p", torch.tensor([1]), torch.tensor([0.0]))
    again = RowTable(p=0.5)
    again.load_state_dict(saved)
    assert again.get("p", torch.tensor([0, 1])).tolist() == [0.5, 1.0]


def test_parts_that_name_the_same_memory_share_it_and_the_checkpoint_holds_it():
    objective = build(recipe="spo", completions=1)
    assert list(objective.memories) == ["ValueTracker"]
    before = objective.row_scores(3)
    assert before.tolist() == [0.55] * 3
    objective.note(Outcomes.of_rewards(torch.tensor([[1.5], [0.0]])))
    again = build(recipe="spo", completions=1)
    again.load_state_dict(objective.state_dict())
    assert again.row_scores(3).tolist() == objective.row_scores(3).tolist() != before.tolist()


def test_a_memory_without_a_declaration_is_refused(tmp_path):
    (tmp_path / "one.py").write_text("def part(rewards, memory):\n    return rewards\n", encoding="utf-8")
    text = message(advantage={"name": f"{tmp_path / 'one.py'}:part"})
    assert "takes 'memory'; declare what computes it with @described(…, memory=…)" in text


def test_scores_of_all_rows_need_a_memory(tmp_path):
    (tmp_path / "one.py").write_text("def part(row_count):\n    return row_count\n", encoding="utf-8")
    assert "has no memory to score them by" in message(prompts={"name": f"{tmp_path / 'one.py'}:part"})
