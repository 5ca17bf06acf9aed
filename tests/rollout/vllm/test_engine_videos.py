"""Prompts with videos for vLLM, on a fake with its interface: the frames and times that the policy sees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks.families.build import build_family
from data import Example, ImageRef, video_ref
from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.errors import UserError
from mm_cpgd.policy import EncodedPrompt, Policy, load_policy
from mm_cpgd.rollout.vllm import VllmEngine
from tests.fakes.videos import write_video
from tests.fakes.vllm import SAMPLING, colocated

pytest.importorskip("av")


@pytest.fixture
def row(tmp_path: Path) -> Example:
    even = write_video(tmp_path / "a.mp4", size=(160, 120))
    uneven = write_video(tmp_path / "b.mp4", times=[0, 0.5, 0.6, 1.9, 2.0, 3.1])
    return Example("x", "Is <video> like <video>?", "1", videos=(video_ref(even), video_ref(uneven)))


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_vllm_gets_the_frames_and_times_of_the_policy(
    family: str, row: Example, tiny_folder: Path, tmp_path: Path
) -> None:
    policy = load_policy(PolicyConfig(model=str(build_family(family, tiny_folder, tmp_path / "model"))))
    engine, llm = colocated(policy)
    prompt = policy.encoder.encode(row)
    # A fake that keeps both pairs of markers would tokenize Qwen3-VL's prompt differently, and is refused.
    if family == "qwen3_vl":
        markers = "<|vision_start|><|video_pad|><|vision_end|>"
        policy.processor.chat_template = policy.processor.chat_template.replace(markers, "<|video_pad|>")
    ((completion,),) = engine.generate([prompt], SAMPLING, [[3]])
    assert completion.tokens.tolist()[:1] == [43]
    (sent,) = llm.prompts
    assert prompt.conversation is not None
    for (frames, known), video in zip(
        sent["multi_modal_data"]["video"], prompt.conversation.videos, strict=True
    ):
        choice = video.choice()
        assert frames.shape == (len(choice.indices), *choice.size[::-1], 3)
        assert known["frames_indices"] == list(choice.ticks)
        assert (known["fps"], known["total_num_frames"]) == (choice.rate, choice.total)
    own = policy.processor.video_processor(
        [torch.from_numpy(frames).permute(0, 3, 1, 2) for frames, _ in sent["multi_modal_data"]["video"]],
        do_resize=False,
        do_sample_frames=False,
        return_tensors="pt",
    )
    assert torch.equal(own["pixel_values_videos"], prompt.vision["pixel_values_videos"])
    assert sent["mm_processor_kwargs"] == {"do_sample_frames": False, "do_resize": False}


def test_prompts_with_and_without_videos_keep_their_order(
    tiny_policy: Policy, row: Example, vllm_prompts: list[EncodedPrompt]
) -> None:
    engine, llm = colocated(tiny_policy)
    prompt = tiny_policy.encoder.encode(row)
    groups = engine.generate([vllm_prompts[1], prompt, vllm_prompts[0]], SAMPLING, [[1], [2, 4], [6]])
    assert [[one.tokens[0].item() for one in group] for group in groups] == [[41], [42, 44], [46]]
    assert [group[0].tokens[1].item() for group in groups] == [50, 30, 52]
    assert llm.calls == ["chat", "generate"]


def test_what_vllm_does_not_get_is_refused(
    tiny_policy: Policy, row: Example, noise_image: Callable[..., ImageRef]
) -> None:
    engine, _ = colocated(tiny_policy)
    both = Example("x", "q", "1", images=(noise_image(56, 56),), videos=row.videos[:1])
    with pytest.raises(UserError, match="no prompts with images beside videos"):
        engine.generate([tiny_policy.encoder.encode(both)], SAMPLING, [[1]])

    class Server:
        """A backend that takes no videos."""

    other = VllmEngine(tiny_policy, Server())  # type: ignore[arg-type]
    with pytest.raises(UserError, match="servers get no videos"):
        other.generate([tiny_policy.encoder.encode(row)], SAMPLING, [[1]])


def test_a_prompt_whose_video_has_vanished_gets_no_completion(
    tiny_policy: Policy, row: Example, tmp_path: Path
) -> None:
    engine, _ = colocated(tiny_policy)
    prompt = tiny_policy.encoder.encode(row)
    (tmp_path / "a.mp4").unlink()
    assert engine.generate([prompt], SAMPLING, [[1]]) == [[]]
