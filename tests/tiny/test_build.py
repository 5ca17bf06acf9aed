"""Embedded tiny policy: architecture, tokenizer, size of the installed files, and the build in two stages."""

import pytest
import torch
from rich.console import Console
from transformers import AutoModelForImageTextToText, AutoProcessor, Qwen2_5_VLForConditionalGeneration

from data.generated import cold_start, generate
from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.policy import load_policy
from mm_cpgd.policy.model import EMBEDDED
from mm_cpgd.rollout import LocalEngine, Sampling
from mm_cpgd.tiny.build import CONTROL_TOKENS, TAGS, build_embedded_policy, build_tiny


@pytest.fixture(scope="module")
def tokenizer(tiny_folder):
    return AutoProcessor.from_pretrained(tiny_folder).tokenizer


def test_the_tiny_policy_has_the_real_architecture_and_about_a_million_weights(tiny_folder):
    model = AutoModelForImageTextToText.from_pretrained(tiny_folder)
    assert type(model) is Qwen2_5_VLForConditionalGeneration
    assert 1.0e6 < sum(p.numel() for p in model.parameters()) < 1.3e6


def test_the_same_seed_builds_the_same_weights(tmp_path, tiny_folder):
    again = AutoModelForImageTextToText.from_pretrained(build_tiny(tmp_path / "again"))
    first = AutoModelForImageTextToText.from_pretrained(tiny_folder)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), first.parameters(), strict=True))


@pytest.mark.parametrize("text", ["∠ABC = 90°, 求 √2·π", "<think>a</think>\n<answer>7</answer>", "\t🙂  x"])
def test_the_tokenizer_writes_any_text(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_tags_and_control_tokens_are_one_token_each(tokenizer):
    for token in (*CONTROL_TOKENS, *TAGS):
        assert len(tokenizer(token)["input_ids"]) == 1


def test_worked_solutions_fit_the_quickstart(tokenizer):
    rows = cold_start(("all",), 500, describe=0.0, careful=1.0)
    assert max(len(tokenizer(row.solution)["input_ids"]) for row in rows) < 48


def test_an_image_is_sixteen_visual_tokens(tiny_folder):
    policy = load_policy(PolicyConfig(model=str(tiny_folder)))
    prompt = policy.encoder.encode(generate(("clock",), 1)[0])
    assert int((prompt.input_ids == policy.model.config.image_token_id).sum()) == 16


def test_the_embedded_policy_is_small_and_keeps_the_format():
    folder = EMBEDDED["embedded:tiny"]
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 4e6
    policy = load_policy(PolicyConfig(model="embedded:tiny", dtype="float32"))
    examples = generate(("all",), 40, seed=77)
    prompts = [policy.encoder.encode(example) for example in examples]
    groups = LocalEngine(policy).generate(prompts, Sampling(48), [[i, 100 + i] for i in range(40)])
    texts = [completion.text for group in groups for completion in group]
    well_formed = [text.startswith("<think>") and text.endswith("</answer>") for text in texts]
    assert sum(well_formed) >= 76


@pytest.mark.slow
@pytest.mark.usefixtures("on_cpu")
def test_an_interrupted_build_resumes_and_ends_in_a_half_precision_policy(tmp_path):
    small = ["sft.steps=2", "sft.batch=4", "data.train.limit=8"]
    arguments = (tmp_path / "runs", tmp_path / "policy", small, Console(quiet=True))
    build_embedded_policy(*arguments)
    (tmp_path / "runs" / "tiny_habits" / "summary.json").unlink()
    place = build_embedded_policy(*arguments)
    model = AutoModelForImageTextToText.from_pretrained(place, dtype="auto")
    assert next(model.parameters()).dtype is torch.float16
    assert (tmp_path / "runs" / "tiny_habits" / "summary.json").exists()
