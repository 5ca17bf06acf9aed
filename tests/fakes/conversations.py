"""Conversations of three turns with images in the observations, and their flattened text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from data import Example, ImageRef, VideoRef
from data.videos.pictures import PictureSequence
from mm_cpgd.environments.protocol import Message
from mm_cpgd.policy import EncodedPrompt, Policy
from mm_cpgd.policy.conversation.observations import ObservationEncoder
from mm_cpgd.policy.conversation.suffix import EncodedObservation, Suffix, join_parts, suffix_of
from mm_cpgd.policy.families import prompt_positions
from mm_cpgd.policy.visual.videos import processor_options, prompt_videos, with_video_places

END = "<|im_end|>"
OF_PICTURES = ("pixel", "image", "video", "second_per_grid_ts")


@dataclass
class Scripted:
    """A conversation: the prompt's example, the turns' texts, and the observations after all but the last.

    ``closed`` says of each turn whether it ends with the end token.
    """

    example: Example
    turns: Sequence[str]
    observations: Sequence[Sequence[Message]]
    closed: Sequence[bool]


def scripts(noise_image: Callable[..., ImageRef]) -> list[Scripted]:
    """Two conversations about one example, one about another, and a completion of one turn."""
    first = Example("a", "How many?", "3", images=(noise_image(112, 84, 0),))
    second = Example("b", "How much is 1 + 2?", "3")
    crop = Message.of("tool", "the crop ", noise_image(56, 84, 1), noise_image(84, 56, 2), " of it")
    text = Message.of("user", "look again")
    other = Message.of("tool", noise_image(140, 56, 3))
    every = (True, True, True)
    return [
        Scripted(first, ("look at 3", "once more", "it is 3"), [(crop,), (text, other)], every),
        Scripted(first, ("zoom", "a", "4"), [(text,), (crop,)], (True, False, False)),
        Scripted(first, ("it is 7",), [], (True,)),
        Scripted(second, ("show", "two", "it is 1 or 2"), [(other,), (text,)], (False, True, True)),
    ]


def scripts_about_videos(noise_image: Callable[..., ImageRef]) -> list[Scripted]:
    """Two conversations about a video with frames shown again, and one about an image and a video."""
    frames = [noise_image(112, 84, seed) for seed in range(6)]
    video = VideoRef("frames", PictureSequence("frames", tuple(frames), 1.5))
    first = Example("a", "When does it move?", "3", videos=(video,))
    both = Example("b", "<image> Is this in <video>?", "3", images=(noise_image(56, 84, 9),), videos=(video,))
    frame, text = Message.of("tool", "at 2 s ", frames[3]), Message.of("user", "look again")
    every = (True, True, True)
    return [
        Scripted(first, ("look at 3", "once more", "it is 3"), [(frame,), (text, frame)], every),
        Scripted(first, ("show", "it is 7"), [(text,)], (False, True)),
        Scripted(both, ("show", "two", "it is 1 or 2"), [(frame,), (text,)], (False, True, True)),
    ]


@dataclass
class Rows:
    """Rows as a policy is trained on them: arguments of ``Policy.forward``."""

    prompts: list[EncodedPrompt]
    tokens: Tensor
    mask: Tensor
    suffixes: list[Suffix | None]


def rows_of(policy: Policy, scripted: Sequence[Scripted]) -> Rows:
    """Encode conversations turn by turn; rows of one example share the prompt."""
    encoder = ObservationEncoder(policy.encoder, policy.end_ids)
    shared: dict[str, EncodedPrompt] = {}
    prompts, tokens, masks, suffixes = [], [], [], []
    for script in scripted:
        prompt = shared.setdefault(script.example.id, policy.encoder.encode(script.example))
        parts: list[Tensor | EncodedObservation] = []
        for number, turn in enumerate(script.turns):
            text = turn + END * script.closed[number]
            ids = policy.tokenizer(text, add_special_tokens=False)["input_ids"]
            parts.append(torch.tensor(ids))
            if number < len(script.observations):
                parts.append(encoder.encode(script.observations[number], ids[-1]))
        own_tokens, own = join_parts(parts)
        prompts.append(prompt)
        tokens.append(own_tokens)
        masks.append(own)
        suffixes.append(suffix_of(policy.model, prompt, parts) if script.observations else None)
    pad = torch.nn.utils.rnn.pad_sequence
    return Rows(prompts, pad(tokens, batch_first=True), pad(masks, batch_first=True), suffixes)


def flattened(policy: Policy, script: Scripted) -> tuple[dict[str, Any], Tensor]:
    """Return the inputs of the whole conversation, rendered and encoded at once, and a mask by hand (S,).

    The mask is True at the tokens of the policy's turns: those after a header of the assistant, up to the end
    token, and there too if the policy wrote it.
    """
    encoder = policy.encoder
    images = list(script.example.images)
    videos = prompt_videos(encoder.processor, encoder.video, script.example.videos)
    text = with_video_places(encoder.processor, encoder.chat(script.example))
    for number, turn in enumerate(script.turns):
        text += turn
        if number < len(script.observations) or script.closed[number]:
            text += END
        if number < len(script.observations):
            for message in script.observations[number]:
                text += f"\n<|im_start|>{message.role}\n"
                for piece in message.content:
                    text += piece if isinstance(piece, str) else "<|vision_start|><|image_pad|><|vision_end|>"
                text += END
                images += message.images
            text += "\n<|im_start|>assistant\n"
    opened = [image.open() for image in images]
    options = processor_options(encoder.processor, [video.frames() for video in videos])
    inputs = dict(encoder.processor(text=[text], images=opened or None, return_tensors="pt", **options))
    ids = inputs["input_ids"][0].tolist()
    header = policy.tokenizer("<|im_start|>assistant\n", add_special_tokens=False)["input_ids"]
    end = policy.tokenizer(END, add_special_tokens=False)["input_ids"][0]
    mask = [False] * len(ids)
    turn = 0
    for start in range(len(ids)):
        if ids[start : start + len(header)] == header:
            at = start + len(header)
            while at < len(ids) and ids[at] != end:
                mask[at] = True
                at += 1
            if at < len(ids):
                mask[at] = bool(script.closed[turn])
            turn += 1
    vision = {name: value for name, value in inputs.items() if name.startswith(OF_PICTURES)}
    types = inputs["mm_token_type_ids"][0]
    inputs.pop("second_per_grid_ts", None)
    inputs["position_ids"] = prompt_positions(policy.model, inputs["input_ids"][0], types, vision)[:, None]
    return inputs, torch.tensor(mask)
