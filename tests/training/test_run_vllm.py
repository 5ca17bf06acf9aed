"""Complete runs on an engine with vLLM's interface that samples from its own copy of the weights."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

from data import Example, ImageRef
from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.errors import RunEnded, UserError
from mm_cpgd.policy import Policy, load_policy
from mm_cpgd.rollout import LocalEngine, Sampling
from mm_cpgd.rollout.vllm import VllmEngine
from mm_cpgd.training import run as training
from mm_cpgd.training.collector import Collector
from tests.fakes.training_runs import run
from tests.fakes.vllm import Engine, install_vllm

Rows = Callable[[Path], list[dict[str, Any]]]
SMALL = [
    "training.iterations=2",
    "rollout.prompts=2",
    "rollout.completions=3",
    "rollout.max_new_tokens=6",
    "training.mini_batch_prompts=1",
    "data.eval=null",
]


class Twin:
    """A ``vllm.LLM`` that samples by the local engine from weights of its own."""

    deaf = False
    ended: ClassVar[list[str]] = []

    def __init__(self, **settings: Any) -> None:
        self.policy = load_policy(PolicyConfig(model=settings["model"], dtype="float32"))
        self.engine = LocalEngine(self.policy)
        with torch.no_grad():  # until it is sent the policy's weights, its completions are another model's
            for parameter in self.policy.parameters():
                parameter.mul_(1.5)
        self.llm_engine = Engine([])
        self.llm_engine.engine_core.shutdown = lambda: self.ended.append("vLLM")

    def reload_weights(self, weights_iterator: Any) -> None:
        weights = dict(weights_iterator)
        if not self.deaf:
            self.policy.model.load_state_dict(weights, strict=False)

    def collective_rpc(self, method: Any, kwargs: Any = None) -> list[Any]:
        return [method(self) if callable(method) else getattr(self, method)(**kwargs)]

    def apply_model(self, func: Callable[[Any], Any]) -> list[Any]:
        return [func(self.policy.model)]

    def reset_prefix_cache(self) -> bool:
        return True

    def chat(self, messages: Any, sampling_params: Any, use_tqdm: bool, lora_request: Any) -> list[Any]:
        return [self._answer(*pair) for pair in zip(messages, sampling_params, strict=True)]

    def _answer(self, conversation: list[dict[str, Any]], params: Any) -> Any:
        parts = conversation[-1]["content"]
        images = [part["image_pil"] for part in parts if part["type"] == "image_pil"]
        text = "".join(part["text"] for part in parts if part["type"] == "text")
        refs = tuple(ImageRef("sent", lambda image=image: image) for image in images)  # type: ignore[misc]
        prompt = self.policy.encoder.encode(Example("1", text, "", images=refs))
        sampling = Sampling(params.max_tokens, params.temperature, params.top_p, params.top_k, params.min_p)
        drawn = self.engine.generate([prompt], sampling, [[params.seed]])[0][0]
        tokens = drawn.tokens.tolist()
        logprobs = [
            {token: SimpleNamespace(logprob=value)}
            for token, value in zip(tokens, drawn.logprobs.tolist(), strict=True)
        ]
        output = SimpleNamespace(token_ids=tokens, logprobs=logprobs)
        return SimpleNamespace(prompt_token_ids=prompt.input_ids.tolist(), outputs=[output])


@pytest.fixture
def twin(monkeypatch: pytest.MonkeyPatch) -> type[Twin]:
    install_vllm(monkeypatch, Twin)
    monkeypatch.setattr(Twin, "deaf", False)
    monkeypatch.setattr(Twin, "ended", [])
    return Twin


def metrics(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the metrics that depend on neither the clock nor the engine."""
    own = ("seconds/", "tokens/per_second", "rollout/")
    return [{name: value for name, value in row.items() if not name.startswith(own)} for row in rows]


SAMPLINGS: list[list[str]] = [
    [],
    ["rollout.temperature=1.7", "rollout.top_k=40", "rollout.top_p=0.8"],
    ["rollout.temperature=0.7", "rollout.min_p=0.2", "training.mini_batch_prompts=2"],
    ["rollout.temperature=1.7", "rollout.top_p=0.8", "rollout.cuts=reweight"],
]


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_run_on_vllm_is_the_run_on_the_local_engine(
    yaml: Path, tmp_path: Path, twin: type[Twin], read_rows: Rows, sampling: list[str]
) -> None:
    run(yaml, [*SMALL, *sampling])
    here = read_rows(tmp_path / "run")
    run(yaml, [*SMALL, *sampling, "rollout.engine=vllm"], overwrite=True)
    there = read_rows(tmp_path / "run")
    for row, expected in zip(metrics(there), metrics(here), strict=True):
        assert row == pytest.approx(expected, rel=1e-3, abs=1e-6, nan_ok=True)
    gaps = [(row["rollout/logprob_difference_mean"], row["rollout/logprob_difference_max"]) for row in there]
    reweights = "rollout.cuts=reweight" in sampling
    # Reweighting is for a difference: that of the tokens which the cuts left out.
    assert all(mean > 0.01 if reweights else mean <= largest < 1e-4 for mean, largest in gaps)
    assert any(name.startswith("rollout/") for name in here[-1]) == reweights
    first = here[0] if here[0]["iteration"] else here[1]
    assert 0 < first["policy/entropy"] < 6


def test_an_engine_that_does_not_take_the_weights_shows_in_the_difference(
    yaml: Path, tmp_path: Path, twin: type[Twin], read_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twin, "deaf", True)
    run(yaml, [*SMALL, "training.iterations=1", "rollout.engine=vllm"])
    assert read_rows(tmp_path / "run")[-1]["rollout/logprob_difference_mean"] > 0.01


def test_the_correction_weights_the_tokens_that_another_policy_sampled(
    yaml: Path, tmp_path: Path, twin: type[Twin], read_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twin, "deaf", True)
    norms = []
    for kind, cap in (("off", 2.0), ("truncate_tokens", 1e-6)):
        overrides = ["training.iterations=1", "rollout.engine=vllm", f"rollout.vllm.correction={kind}"]
        overrides.append(f"rollout.vllm.importance_cap={cap:.7f}")
        run(yaml, [*SMALL, *overrides], overwrite=True)
        norms.append(read_rows(tmp_path / "run")[-1]["optimizer/grad_norm"])
    # With a cap of a millionth every token weighs a millionth; what the drift term adds comes at later steps.
    assert norms[1] < norms[0] * 0.1


def test_a_missing_vllm_is_reported_with_its_extra(yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match=r"mm-cpgd\[vllm\]"):
        run(yaml, [*SMALL, "rollout.engine=vllm"])


def test_vllm_is_ended_before_the_policy_is_written(
    yaml: Path, twin: type[Twin], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Policy.save
    monkeypatch.setattr(
        Policy, "save", lambda *args, **options: (twin.ended.append("saved"), write(*args, **options))[1]
    )
    run(yaml, [*SMALL, "training.iterations=1", "checkpoint.every=0", "rollout.engine=vllm"])
    assert twin.ended[:2] == ["vLLM", "saved"]


@pytest.mark.parametrize("place", [(Collector, "collect"), (training, "build_trainer")])
@pytest.mark.parametrize("error", [UserError, RunEnded])
def test_vllm_is_ended_when_a_run_fails(
    yaml: Path, twin: type[Twin], monkeypatch: pytest.MonkeyPatch, place: Any, error: type[Exception]
) -> None:
    def fail(*args: Any, **options: Any) -> Any:
        raise error("as it happens")

    monkeypatch.setattr(*place, fail)
    with pytest.raises(error, match="as it happens"):
        run(yaml, [*SMALL, "rollout.engine=vllm"])
    assert twin.ended == ["vLLM"]


def test_a_row_whose_image_vanishes_before_vllm_opens_it_is_left_out(
    yaml: Path, tmp_path: Path, twin: type[Twin], read_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    converse = VllmEngine._conversation
    calls = iter(range(1000))

    def without_first(self: VllmEngine, prompt: Any) -> Any:
        return None if next(calls) == 0 else converse(self, prompt)

    monkeypatch.setattr(VllmEngine, "_conversation", without_first)
    _, printed = run(yaml, [*SMALL, "rollout.engine=vllm"])
    assert [row["data/lost"] for row in read_rows(tmp_path / "run")] == [1.0, 0.0]
    assert printed.count("is left out: its image cannot be opened any more") == 1


def test_a_held_out_row_whose_image_vanishes_is_not_counted(
    yaml: Path, tmp_path: Path, twin: type[Twin], read_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    converse = VllmEngine._conversation
    calls = iter(range(1000))

    def without_first(self: VllmEngine, prompt: Any) -> Any:
        return None if next(calls) == 0 else converse(self, prompt)

    monkeypatch.setattr(VllmEngine, "_conversation", without_first)
    evaluated = [one for one in SMALL if not one.startswith("data.eval")]
    run(yaml, [*evaluated, "rollout.engine=vllm"])
    before, *_ = read_rows(tmp_path / "run")
    assert (before["eval/lost"], before["eval/n"]) == (1.0, 3.0)
