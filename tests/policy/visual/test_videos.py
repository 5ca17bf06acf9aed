"""Prompts with videos: encoding, length, shared features and prefixes, workers, and sampling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.families.build import build_family
from data import DataError, Example, ImageRef, VideoLimits, VideoRef, video_ref
from data.videos.pictures import PictureSequence
from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.policy import EncodedPrompt, Policy, load_policy
from mm_cpgd.policy.families import vision_modules
from mm_cpgd.policy.prompt_workers import PromptWorkers
from mm_cpgd.policy.visual.videos import video_patches
from mm_cpgd.rollout import LocalEngine, Sampling
from tests.fakes.videos import write_video

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")


@pytest.fixture(scope="module", params=FAMILIES)
def policy(
    request: pytest.FixtureRequest, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Policy:
    folder = build_family(request.param, tiny_folder, tmp_path_factory.mktemp(request.param))
    return load_policy(PolicyConfig(model=str(folder)), shared_prefix=True)


@pytest.fixture(scope="module")
def rows(noise_image: Callable[..., ImageRef]) -> list[Example]:
    """A video, one between two images, two videos, and an image without a video."""

    def video(frames: int, fps: float, width: int, height: int, seed: int) -> VideoRef:
        pictures = tuple(noise_image(width, height, seed + number) for number in range(frames))
        return VideoRef(f"noise {seed}", PictureSequence(f"noise {seed}", pictures, fps))

    square, wide = video(9, 2.0, 112, 112, 0), video(31, 10.0, 200, 70, 50)
    images = (noise_image(112, 112, 90), noise_image(64, 80, 91))
    return [
        Example("video", "When does it move?", "1", videos=(square,)),
        Example("between", "Is <image2> in <video>, or <image1>?", "1", images=images, videos=(wide,)),
        Example("two", "Is <video2> longer?", "1", videos=(square, wide)),
        Example("image", "How many?", "1", images=images[:1]),
    ]


def test_the_length_is_that_of_the_encoded_prompt(policy: Policy, rows: list[Example]) -> None:
    for row in rows:
        assert policy.encoder.length(row) == len(policy.encoder.encode(row)), row.id


def test_a_video_has_the_tokens_of_its_choice(policy: Policy, rows: list[Example]) -> None:
    prompt = policy.encoder.encode(rows[0])
    patches = video_patches(policy.processor)
    assert prompt.conversation is not None
    choice = prompt.conversation.videos[0].choice()
    assert len(choice.indices) == 8
    assert choice.tokens(patches) == int((prompt.input_ids == policy.model.config.video_token_id).sum())
    assert prompt.vision["video_grid_thw"].tolist() == [
        [4, *(side // policy.processor.video_processor.patch_size for side in choice.size)]
    ]
    assert set(prompt.vision) == {"pixel_values_videos", "video_grid_thw"}


def test_limits_are_honoured(policy: Policy, rows: list[Example]) -> None:
    few = load_policy(
        PolicyConfig.model_validate(
            {"model": policy.model.name_or_path, "video": {"frames": 4, "max_tokens": 12}}
        )
    )
    prompt = few.encoder.encode(rows[0])
    assert int(prompt.vision["video_grid_thw"][0, 0]) == 2
    assert 0 < int((prompt.input_ids == policy.model.config.video_token_id).sum()) <= 12


def completions(policy: Policy, prompts: list[EncodedPrompt]) -> tuple[list[EncodedPrompt], Tensor, Tensor]:
    """Return two completions of each prompt."""
    tokens = torch.randint(20, 200, (2 * len(prompts), 6), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(tokens).bool()
    mask[1, 4:] = False
    return [prompt for prompt in prompts for _ in range(2)], tokens, mask


def separately(policy: Policy, prompts: list[EncodedPrompt], tokens: Tensor, mask: Tensor) -> Tensor:
    """Compute log-probabilities by transformers' own forward pass, one row at a time, with our positions."""
    found = torch.zeros(tokens.shape)
    for row, prompt in enumerate(prompts):
        own = tokens[row][mask[row]]
        ids = torch.cat([prompt.input_ids, own]).unsqueeze(0)
        after = (prompt.next_position + torch.arange(len(own))).expand(3, -1)
        types = torch.cat([prompt.token_types, torch.zeros(len(own), dtype=torch.long)])  # type: ignore[list-item]
        with torch.no_grad():
            logits = (
                policy.model(
                    input_ids=ids,
                    position_ids=torch.cat([prompt.positions, after], 1).unsqueeze(1),
                    mm_token_type_ids=types.unsqueeze(0),
                    **prompt.vision,
                )
                .logits[0]
                .float()
            )
        logits[:, policy.forbidden] = -torch.inf
        predicted = logits[len(prompt) - 1 : -1].log_softmax(-1)
        found[row, : len(own)] = predicted.gather(1, own.unsqueeze(1)).squeeze(1)
    return found


def test_shared_prefixes_and_features_give_the_log_probabilities_of_separate_rows(
    policy: Policy, rows: list[Example]
) -> None:
    prompts, tokens, mask = completions(policy, [policy.encoder.encode(row) for row in rows])
    with torch.no_grad():
        shared, _ = policy(prompts, tokens, mask)
        policy.shared_prefix = False
        padded, _ = policy(prompts, tokens, mask)
        policy.shared_prefix = True
    expected = separately(policy, prompts, tokens, mask)
    torch.testing.assert_close(shared, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(padded, expected, rtol=0, atol=1e-5)


def test_a_trained_tower_has_the_same_gradient_shared_or_not(policy: Policy, rows: list[Example]) -> None:
    prompts, tokens, mask = completions(policy, [policy.encoder.encode(row) for row in rows])
    trained = load_policy(
        PolicyConfig(model=policy.model.name_or_path, freeze_vision=False), shared_prefix=True
    )
    gradients = []
    for shared in (True, False):
        trained.shared_prefix = shared
        trained.zero_grad()
        trained(prompts, tokens, mask)[0].sum().backward()
        first = next(vision_modules(trained.model)[0].parameters())
        assert first.grad is not None
        gradients.append(first.grad.clone())
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-5)


def test_a_video_is_encoded_once_for_all_its_prompts(policy: Policy, rows: list[Example]) -> None:
    counts: list[int] = []
    handle = vision_modules(policy.model)[0].register_forward_pre_hook(
        lambda module, inputs: counts.append(len(inputs[0]))
    )
    prompts = [policy.encoder.encode(row) for row in (rows[0], rows[2], replace(rows[0], question="Where?"))]
    policy.vision_cache.encode(prompts)
    policy.vision_cache.encode(prompts)
    handle.remove()
    assert counts == [sum(len(prompt.vision["pixel_values_videos"]) for prompt in prompts[:2])]


def test_the_order_of_an_image_and_a_video_matters(policy: Policy, rows: list[Example]) -> None:
    one = replace(rows[1], question="<image1><image2><video>")
    other = replace(rows[1], question="<video><image1><image2>")
    prompts, tokens, mask = completions(policy, [policy.encoder.encode(row) for row in (one, other)])
    with torch.no_grad():
        found, _ = policy(prompts, tokens, mask)
    torch.testing.assert_close(found, separately(policy, prompts, tokens, mask), rtol=0, atol=1e-5)
    assert not torch.allclose(found[0], found[2], atol=1e-3)


def test_greedy_samples_are_those_of_transformers(policy: Policy, rows: list[Example]) -> None:
    # Few frames in a short time: there all conventions for the positions after a video agree.
    video = rows[0].videos[0]
    assert isinstance(video.source, PictureSequence)
    quick = VideoRef("quick", replace(video.source, pictures=video.source.pictures[:4], fps=8.0))
    row = Example("quick", "What moves?", "1", videos=(quick,))
    inputs = policy.encoder.inputs(row)
    generated = policy.model.generate(
        **inputs, do_sample=False, max_new_tokens=8, suppress_tokens=policy.forbidden_ids
    )
    expected = generated[0, inputs["input_ids"].shape[1] :].tolist()
    prompt = policy.encoder.encode(row)
    for shared in (True, False):
        policy.shared_prefix = shared
        ((completion,),) = LocalEngine(policy).generate([prompt], Sampling(8, temperature=0.0), [[1]])
        policy.shared_prefix = True
        assert completion.tokens.tolist() == expected[: len(completion.tokens)]


def test_processes_encode_the_same_prompts(tiny_policy: Policy, rows: list[Example], tmp_path: Path) -> None:
    file = write_video(tmp_path / "a.mp4")
    row = Example("file", "When?", "1", videos=(video_ref(file), video_ref(file.read_bytes())))
    workers = PromptWorkers(tiny_policy.encoder, 1)
    try:
        sent = workers.submit(row).result(timeout=120)
    finally:
        workers.close()
    own = tiny_policy.encoder.encode(row)
    assert sent is not None
    assert torch.equal(sent.input_ids, own.input_ids)
    assert torch.equal(sent.positions, own.positions)
    assert all(torch.equal(sent.vision[name], own.vision[name]) for name in own.vision)


def test_a_family_that_reads_no_videos_says_so(
    tiny_folder: Path, tmp_path: Path, rows: list[Example]
) -> None:
    folder = build_family("internvl", tiny_folder, tmp_path)
    encoder = load_policy(PolicyConfig(model=str(folder))).encoder
    for use in (encoder.encode, encoder.length):
        with pytest.raises(DataError, match="reads none here"):
            use(rows[0])


def test_frames_that_differ_give_other_pixels(tiny_policy: Policy, rows: list[Example]) -> None:
    source = rows[0].videos[0].source
    assert isinstance(source, PictureSequence)
    turned = VideoRef("turned", replace(source, pictures=source.pictures[::-1]))
    one, other = (
        tiny_policy.encoder.encode(Example("x", "q", "1", videos=(video,)))
        for video in (rows[0].videos[0], turned)
    )
    assert not np.array_equal(one.vision["pixel_values_videos"], other.vision["pixel_values_videos"])


def test_the_default_limits_are_those_of_the_config() -> None:
    assert VideoLimits(**PolicyConfig(model="x").video.model_dump()) == VideoLimits()
