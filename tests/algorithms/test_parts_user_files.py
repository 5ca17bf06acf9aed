"""A user's own part: a function in a file, named by path."""

import pytest
import torch

from mm_cpgd.algorithms.composition import build_objective
from mm_cpgd.algorithms.formulas import composition_lines
from mm_cpgd.config.recipes import load_recipe
from mm_cpgd.config.schema import AlgorithmConfig
from mm_cpgd.errors import UserError

OWN = """\
from typing import Annotated

from pydantic import Field

from mm_cpgd.algorithms.part_info import described


@described("S = tanh({scale}·ℓ·A)", gradient="{scale}·A / cosh²", source="my notebook")
def soft(log_ratio, advantages, *, scale: Annotated[float, Field(gt=0)] = 1.0):
    return (scale * log_ratio * advantages).tanh()


def ones(old_logprobs):
    \"\"\"m = 1\"\"\"
    return old_logprobs * 0 + 1


def halves(old_logprobs, advantages, *, half=0.5):
    return (old_logprobs < old_logprobs.mean()) * half


def near(log_ratio):
    return (log_ratio.abs() < 0.1).double()


def torn(log_ratio, seed):
    return log_ratio * seed


def marked(advantages, *, above):
    return (advantages > above).float()


@described("Ω = ℓ² where A > {above}", prepare=marked)
def held(log_ratio, prepared, *, above: float = 0.0):
    return prepared * log_ratio**2


class Counter:
    def __init__(self, start):
        self.value = start

    def observe(self, metrics):
        self.value += 1

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


@described("Ω = n·ℓ", state=Counter)
def counting(log_ratio, state, *, start: int = 0):
    return state * log_ratio


def greedy(log_ratio, tokens):
    return log_ratio


def needy(log_ratio, prepared):
    return log_ratio
"""


@pytest.fixture
def own(tmp_path):
    file = tmp_path / "own_parts.py"
    file.write_text(OWN)

    def build(**sections):
        written = {
            kind: [{**part, "name": f"{file}:{part['name']}"} for part in section]
            if isinstance(section, list)
            else {**section, "name": f"{file}:{section['name']}"}
            for kind, section in sections.items()
        }
        config = AlgorithmConfig(**{**load_recipe("pg"), **written})
        return build_objective(config, completions=4, max_new_tokens=8)

    return build


def loss_of(objective, log_ratio=0.5, advantage=2.0, **inputs):
    old = torch.zeros(1, 1, dtype=torch.float64)
    mask = torch.ones(1, 1, dtype=torch.bool)
    return objective.loss(old + log_ratio, old, torch.tensor([advantage]), mask, torch.tensor([1]), **inputs)[
        0
    ].item()


def test_a_surrogate_may_return_its_terms_alone(own):
    objective = own(surrogate={"name": "soft", "scale": 0.5})
    assert loss_of(objective) == pytest.approx(-torch.tensor(0.5, dtype=torch.float64).tanh().item())


def test_its_formula_is_shown_like_any_other(own):
    text = "\n".join(text for _, text in composition_lines(own(surrogate={"name": "soft", "scale": 0.5})))
    assert "S = tanh(0.5·ℓ·A)" in text
    assert "source: my notebook" in text


def test_a_function_without_a_description_is_shown_by_its_docstring(own):
    text = "\n".join(text for _, text in composition_lines(own(token_weights=[{"name": "ones"}])))
    assert "m = 1" in text


def test_token_weights_multiply(own):
    objective = own(token_weights=[{"name": "ones"}, {"name": "halves"}])
    found = objective.prepare(torch.tensor([0.0, -2.0]), torch.zeros(2), torch.ones(2), seed=0)
    assert [values.tolist() for values in found.values()] == [[1, 1], [0, 0.5]]
    known = {name: values[None, 1:].double() for name, values in found.items()}
    assert loss_of(objective, prepared=known) == pytest.approx(-0.5)


def test_a_token_weight_may_follow_the_policy_or_use_the_whole_mini_batch_but_not_both(own):
    objective = own(token_weights=[{"name": "near"}])
    assert objective.prepare(torch.zeros(2), torch.zeros(2), torch.ones(2), seed=0) == {}
    assert loss_of(objective) == pytest.approx(0.0)  # |ℓ| of its only token is 0.5
    with pytest.raises(UserError, match="takes log_ratio, which changes at every step, and seed"):
        own(token_weights=[{"name": "torn"}])


def test_a_regularizer_may_use_the_whole_mini_batch(own):
    objective = own(regularizers=[{"name": "held", "above": 1.0}])
    found = objective.prepare(torch.zeros(2), torch.zeros(2), torch.tensor([0.5, 1.5]), seed=0)
    ((name, values),) = found.items()
    assert values.tolist() == [0, 1]
    with pytest.raises(ValueError, match="needs prepared values of algorithm"):
        loss_of(objective)
    assert loss_of(objective, prepared={name: torch.ones(1, 1)}) == pytest.approx(-1.0 + 0.25)


def test_a_part_may_have_a_state_that_is_saved_and_restored(own):
    objective = own(regularizers=[{"name": "counting", "start": 3}])
    assert loss_of(objective) == pytest.approx(-1.0 + 1.5)
    objective.observe({})
    assert loss_of(objective) == pytest.approx(-1.0 + 2.0)
    other = own(regularizers=[{"name": "counting"}])
    other.load_state_dict(objective.state_dict())
    assert loss_of(other) == pytest.approx(-1.0 + 2.0)


@pytest.mark.parametrize(
    ("section", "reason"),
    [
        ({"name": "soft", "scale": 0}, "scale = 0 is not possible. Input should be greater than 0."),
        ({"name": "soft", "scal": 1}, "has no option 'scal'; the nearest is 'scale'"),
        ({"name": "sofd"}, "has no function 'sofd': the nearest is 'soft'"),
        ({"name": "greedy"}, "takes 'tokens', which is no input of parts of this kind"),
        ({"name": "needy"}, "takes 'prepared'; declare what computes it with @described"),
    ],
)
def test_a_part_that_does_not_fit_is_a_user_error(own, section, reason):
    with pytest.raises(UserError, match=reason):
        own(surrogate=section)


def test_a_file_that_is_missing_or_broken_is_a_user_error(own, tmp_path):
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n")
    for file, reason in (("absent.py", "there is no file"), ("broken.py", "cannot be imported: Module")):
        surrogate = {"name": f"{tmp_path / file}:soft"}
        config = AlgorithmConfig(**{**load_recipe("pg"), "surrogate": surrogate})
        with pytest.raises(UserError, match=reason):
            build_objective(config, completions=4, max_new_tokens=8)
