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
from mm_cpgd.checkpoint.folder import newest_checkpoint
from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.errors import RunEnded, UserError
from mm_cpgd.interrupt import Interrupted
from mm_cpgd.policy import Policy, load_policy
from mm_cpgd.rollout import LocalEngine, Sampling
from mm_cpgd.rollout.vllm import VllmEngine
from mm_cpgd.training import run as training
from mm_cpgd.training.collector import Collector
from mm_cpgd.training.trainer import Trainer
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

    # Whether it ignores the weights that it is sent, and from which sending on.
    deaf = False
    deaf_after = 1 << 30
    dtype = torch.float32
    ended: ClassVar[list[str]] = []

    def __init__(self, **settings: Any) -> None:
        self.policy = load_policy(PolicyConfig(model=settings["model"], dtype="float32"))
        self.engine = LocalEngine(self.policy)
        self.model_config = SimpleNamespace(dtype=self.dtype)
        self.sent = 0
        with torch.no_grad():  # until it is sent the policy's weights, its completions are another model's
            for parameter in self.policy.parameters():
                parameter.mul_(1.5)
        self.llm_engine = Engine([])
        self.llm_engine.engine_core.shutdown = lambda: self.ended.append("vLLM")

    def reload_weights(self, weights_iterator: Any) -> None:
        weights = dict(weights_iterator)
        self.sent += 1
        if not self.deaf and self.sent <= self.deaf_after:
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
    monkeypatch.setattr(Twin, "deaf_after", 1 << 30)
    monkeypatch.setattr(Twin, "dtype", torch.float32)
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
    assert all(mean <= largest < 1e-4 for mean, largest in gaps)
    # Reweighting is for a difference that is none of the engine: that of the tokens which the cuts left out.
    name = "rollout/weight_mean"
    weights = [[row[name] for row in rows if name in row] for rows in (there, here)]
    assert weights[0] == pytest.approx(weights[1], rel=1e-3)
    assert all(0 < weight < 0.99 for weight in weights[0])
    assert bool(weights[0]) == ("rollout.cuts=reweight" in sampling)
    first = here[0] if here[0]["iteration"] else here[1]
    assert 0 < first["policy/entropy"] < 6


def test_an_engine_with_other_weights_ends_the_run_in_its_first_batch(
    yaml: Path, tmp_path: Path, twin: type[Twin], read_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [*SMALL, "rollout.engine=vllm", "evaluation.after=false"]
    run(yaml, options)
    expected = read_rows(tmp_path / "run")
    monkeypatch.setattr(twin, "deaf", True)
    with pytest.raises(RunEnded, match=r"iteration 1: .*allowed are 1e-05 \(default of float32") as ended:
        run(yaml, options, overwrite=True)
    assert ended.value.exit_code == 1
    assert "--resume" in str(ended.value)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert list((tmp_path / "run" / "rollouts").iterdir())
    monkeypatch.setattr(twin, "deaf", False)
    run(yaml, options, resume=True)
    # The samples are drawn again, and the run is the one that was never stopped.
    for row, other in zip(metrics(read_rows(tmp_path / "run")), metrics(expected), strict=True):
        assert row == pytest.approx(other, rel=1e-5, abs=1e-6, nan_ok=True)


def test_weights_that_stop_arriving_end_the_run_and_keep_what_was_learned(
    yaml: Path, tmp_path: Path, twin: type[Twin], read_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twin, "deaf_after", 1)
    options = [*SMALL, "rollout.engine=vllm", "training.learning_rate=2.0e-5", "checkpoint.every=0"]
    with pytest.raises(RunEnded, match=r"iteration 2: .* in the batch before: so it looks when new weights"):
        run(yaml, options)
    assert [row["iteration"] for row in read_rows(tmp_path / "run")] == [1]
    found = newest_checkpoint(tmp_path / "run" / "checkpoints", print)
    assert found is not None
    assert found.name.endswith("1")


def test_samples_of_an_earlier_start_that_do_not_fit_are_drawn_again(
    yaml: Path, tmp_path: Path, twin: type[Twin], read_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [*SMALL, "rollout.engine=vllm"]
    monkeypatch.setattr(twin, "deaf", True)
    with monkeypatch.context() as patched:
        # Stopped by a signal between rollout and update, with the wrong samples in the checkpoint.
        patched.setattr(Trainer, "_update", lambda *_: (_ for _ in ()).throw(Interrupted))
        with pytest.raises(RunEnded, match="stopped after iteration 0"):
            run(yaml, options)
    monkeypatch.setattr(twin, "deaf", False)
    _, printed = run(yaml, options, resume=True)
    assert "it is sampled again" in printed
    assert [row["iteration"] for row in read_rows(tmp_path / "run")] == [1, 2]


def test_an_engine_without_numbers_ends_the_run(
    yaml: Path, twin: type[Twin], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = twin._answer

    def silent(self: Twin, conversation: list[dict[str, Any]], params: Any) -> Any:
        reply = answer(self, conversation, params)
        for by_token in reply.outputs[0].logprobs:
            for entry in by_token.values():
                entry.logprob = float("nan")
        return reply

    monkeypatch.setattr(twin, "_answer", silent)
    with pytest.raises(RunEnded, match=r"100\.0% of them without a number"):
        run(yaml, [*SMALL, "rollout.engine=vllm"])


CORRECTIONS = ["truncate_tokens", "truncate_sequences", "mask_tokens", "mask_sequences"]
LENIENT = ["training.iterations=1", "rollout.engine=vllm", "rollout.vllm.max_difference=100"]


@pytest.mark.parametrize("kind", CORRECTIONS)
def test_a_correction_reduces_what_samples_of_another_policy_do(
    yaml: Path, tmp_path: Path, twin: type[Twin], read_rows: Rows, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(twin, "deaf", True)
    rows = {}
    for chosen in ("off", kind):
        run(yaml, [*SMALL, *LENIENT, f"rollout.vllm.correction={chosen}"], overwrite=True)
        rows[chosen] = read_rows(tmp_path / "run")[-1]
    assert rows["off"]["rollout/logprob_difference_mean"] > 0.1
    assert not any(name.startswith("rollout/weight") for name in rows["off"])
    assert rows[kind]["optimizer/grad_norm"] < rows["off"]["optimizer/grad_norm"]
    share = rows[kind]["rollout/weight_masked" if kind.startswith("mask") else "rollout/weight_clipped"]
    assert 0 <= share <= 1
    assert share > 0 or kind.startswith("truncate")


def test_the_cap_bounds_every_weight(
    yaml: Path, tmp_path: Path, twin: type[Twin], read_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twin, "deaf", True)
    kind = ["rollout.vllm.correction=truncate_tokens", "rollout.vllm.importance_cap=0.000001"]
    run(yaml, [*SMALL, *LENIENT, *kind])
    row = read_rows(tmp_path / "run")[-1]
    # With a cap of a millionth every token weighs a millionth.
    assert row["rollout/weight_mean"] == pytest.approx(1e-6, rel=1e-3)
    assert row["rollout/weight_clipped"] == 1.0


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
