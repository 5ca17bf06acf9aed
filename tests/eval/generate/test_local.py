"""Local generator: agreement with the rollout engine, batching, failures, memory."""

from __future__ import annotations

import dataclasses
import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from data import DataError, Example, ImageRef
from eval.benchmark import Failure
from eval.generate.cache import GenerationCache
from eval.generate.decoding import Decoding
from eval.generate.generate import Question, generate_responses
from eval.generate.local import LocalGenerator
from eval.generate.outcomes import Generations
from mm_cpgd.errors import UserError
from mm_cpgd.policy import Policy
from mm_cpgd.rollout import LocalEngine, Sampling

GREEDY, DRAWN = Decoding(6), Decoding(6, temperature=1.0, seed=1)
Noise = Callable[..., ImageRef]


@pytest.fixture
def generator(tiny_folder: Path, tiny_policy: Policy) -> LocalGenerator:
    made = LocalGenerator(str(tiny_folder), batch=4, device="cpu")
    # Already loaded, so that no test waits for it.
    made.__dict__["policy"] = tiny_policy
    return made


@pytest.fixture
def questions(noise_image: Noise) -> list[Question]:
    rows = [Question(str(i), f"How many {i}?", (noise_image(60 + 20 * i, 80, i),)) for i in range(5)]
    return [*rows, Question("text", "What is 1 + 1?")]


def texts(found: Generations) -> dict[tuple[str, int], str]:
    return {(one.id, one.sample): one.text for one in found.responses}


def test_greedy_responses_are_those_of_the_trainers_engine(
    generator: LocalGenerator, questions: list[Question], tiny_policy: Policy
) -> None:
    found = generate_responses(questions, generator, GREEDY)
    prompts = [tiny_policy.encoder.encode(Example(q.id, q.text, "", q.images)) for q in questions]
    groups = LocalEngine(tiny_policy).generate(prompts, Sampling(6, temperature=0), [[0]] * len(prompts))
    assert [one.text for one in found.responses] == [group[0].text for group in groups]
    assert [one.tokens for one in found.responses] == [group[0].tokens.numel() for group in groups]
    assert [one.finished for one in found.responses] == [group[0].finished for group in groups]


def test_samples_differ_and_depend_neither_on_the_batch_nor_on_the_cache(
    generator: LocalGenerator, questions: list[Question], tmp_path: Path
) -> None:
    whole = texts(generate_responses(questions, generator, DRAWN, samples=3))
    assert len(set(whole.values())) > 12
    generator.batch = 1
    with GenerationCache(tmp_path / "c.jsonl") as cache:
        generate_responses(questions[1:3], generator, DRAWN, samples=2, cache=cache)
        assert texts(generate_responses(questions, generator, DRAWN, samples=3, cache=cache)) == whole


def test_as_many_responses_as_requested_are_decoded_together(
    generator: LocalGenerator, questions: list[Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    real = LocalEngine.generate

    def watched(self: Any, prompts: Any, sampling: Any, seeds: Any) -> Any:
        sizes.append(sum(map(len, seeds)))
        return real(self, prompts, sampling, seeds)

    monkeypatch.setattr(LocalEngine, "generate", watched)
    generate_responses(questions, generator, DRAWN, samples=2)
    assert sizes == [4, 4, 4]
    sizes.clear()
    generate_responses(questions, generator, DRAWN, samples=3)
    assert sizes == [3] * 6, "two questions of three samples are more than four"
    sizes.clear()
    generate_responses(questions[:2], generator, DRAWN, samples=6)
    assert sizes == [4, 2, 4, 2]


def test_only_the_images_of_one_batch_are_in_memory(
    generator: LocalGenerator, noise_image: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, gone, most = 0, [], 0

    def watch(thing: Any) -> None:
        nonlocal made, most
        made += 1
        weakref.finalize(thing, gone.append, None)
        gc.collect()
        most = max(most, made - len(gone))

    real = generator._encode

    def encode(question: Question) -> Any:
        prompt = real(question)
        assert not isinstance(prompt, Failure)
        watch(prompt.vision["pixel_values"])
        return prompt

    monkeypatch.setattr(generator, "_encode", encode)
    rows = [Question(str(i), f"{i}?", (noise_image(60, 60, i),)) for i in range(18)]
    assert len(generate_responses(rows, generator, Decoding(1)).responses) == 18
    # One batch, and the question that no longer fits into it.
    assert (made, most) == (18, 5)


def test_the_system_prompt_is_the_questions_own(generator: LocalGenerator) -> None:
    plain, other = (generator._encode(Question("a", "Why?", (), prompt)) for prompt in (None, "Think."))
    decode = generator.policy.tokenizer.decode
    assert "Think." not in decode(plain.input_ids)  # type: ignore[union-attr]
    assert decode(other.input_ids).startswith("<|im_start|>system\nThink.")  # type: ignore[union-attr]


def test_rows_that_cannot_be_encoded_do_not_affect_others(
    generator: LocalGenerator, questions: list[Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Image.Image:
        raise DataError("image x.png cannot be decoded: broken")

    wide = ImageRef("wide", lambda: Image.new("RGB", (3000, 1)))
    bad = [
        Question("marker", "<image1> <image2>", (wide,)),
        Question("control", "<|im_end|>"),
        Question("wide", "?", (wide,)),
        Question("long", "word " * 300),
    ]
    monkeypatch.setattr(generator.policy.model.config.get_text_config(), "max_position_embeddings", 200)
    found = generate_responses([*bad[:2], *questions, *bad[2:]], generator, GREEDY)
    assert {one.id for one in found.responses if one.failure is None} == {q.id for q in questions}
    reasons = {name: failure.reason for (name, _), failure in found.failures.items()}
    assert "<image2>" in reasons["marker"]
    assert "control token" in reasons["control"]
    assert "processor rejects" in reasons["wide"]
    assert "the model's limit is 200" in reasons["long"]


def test_a_batch_that_does_not_fit_is_halved_until_it_does(
    generator: LocalGenerator, questions: list[Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = texts(generate_responses(questions, generator, DRAWN, samples=2))
    real = LocalEngine.generate

    def small(self: Any, prompts: Any, sampling: Any, seeds: Any) -> Any:
        if sum(map(len, seeds)) > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return real(self, prompts, sampling, seeds)

    monkeypatch.setattr(LocalEngine, "generate", small)
    assert texts(generate_responses(questions, generator, DRAWN, samples=2)) == whole

    def none(self: Any, prompts: Any, sampling: Any, seeds: Any) -> Any:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(LocalEngine, "generate", none)
    with pytest.raises(DataError, match="not enough memory"):
        generate_responses(questions, generator, DRAWN, samples=2)


def test_nothing_is_loaded_when_everything_is_known(
    generator: LocalGenerator, questions: list[Question], tiny_folder: Path, tmp_path: Path
) -> None:
    with GenerationCache(tmp_path / "c.jsonl") as cache:
        first = generate_responses(questions, generator, GREEDY, cache=cache)
        later = LocalGenerator(str(tiny_folder), device="cpu")
        assert generate_responses(questions, later, GREEDY, cache=cache).responses == first.responses
        assert "policy" not in later.__dict__


def test_image_limits_and_precision_are_in_the_models_identity(tiny_folder: Path) -> None:
    def identity(**options: Any) -> dict[str, Any]:
        return dict(LocalGenerator(str(tiny_folder), device="cpu", **options).identity)

    plain = identity()
    assert plain["dtype"] == "float32"
    assert identity(max_pixels=4000) == {**plain, "max_pixels": 4000}
    assert identity(dtype="bfloat16") == {**plain, "dtype": "bfloat16"}
    assert identity(batch=3) == plain


def test_a_missing_model_is_a_user_error() -> None:
    with pytest.raises(UserError, match="no such folder"):
        LocalGenerator("./no/such/model")


def test_vllm_is_the_trainers_engine_with_the_image_limits_of_the_policy(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mm_cpgd.rollout.vllm import VllmEngine, colocated

    opened: list[tuple[str, dict[str, Any]]] = []

    def open_colocated(model: str, **options: Any) -> str:
        opened.append((model, options))
        return "backend"

    monkeypatch.setattr(colocated, "open_colocated", open_colocated)
    made = LocalGenerator(str(tiny_folder), engine="vllm", max_pixels=4000, device="cpu")
    assert made.identity["engine"] == "vllm"
    assert isinstance(made.engine, VllmEngine)
    ((model, options),) = opened
    assert model == str(tiny_folder)
    assert options["image_limits"] == {"max_pixels": 4000}
    assert options["options"] == {"dtype": "float32"}


def test_a_stop_text_ends_a_response_before_it(generator: LocalGenerator, questions: list[Question]) -> None:
    whole = generate_responses(questions, generator, DRAWN).responses
    ends = tuple({one.text[2] for one in whole if len(one.text) > 2})
    cut = generate_responses(questions, generator, dataclasses.replace(DRAWN, stop=ends)).responses
    for before, after in zip(whole, cut, strict=True):
        first = min((at for end in ends if (at := before.text.find(end)) >= 0), default=None)
        assert after.text == before.text[:first]
        assert after.finished is (before.finished if first is None else True)


def test_a_response_is_continued_after_its_beginning(
    generator: LocalGenerator, questions: list[Question], tiny_policy: Policy
) -> None:
    plain = generator._encode(questions[0])
    begun = generator._encode(dataclasses.replace(questions[0], beginning="<think>Hm. So"))
    assert not isinstance(plain, Failure)
    assert not isinstance(begun, Failure)
    decode = tiny_policy.tokenizer.decode
    assert decode(begun.input_ids) == decode(plain.input_ids) + "<think>Hm. So"
    assert begun.positions.shape[1] == len(begun)
    assert begun.next_position == plain.next_position + len(begun) - len(plain)
    assert begun.conversation is not None
    assert begun.conversation.messages[-1] == {
        "role": "assistant", "content": [{"type": "text", "text": "<think>Hm. So"}],
    }  # fmt: skip
