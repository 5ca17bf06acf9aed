"""Checks of a model at the start of a run: architecture, complete weights, chat template.

Each raises one UserError that names the model; without them a run would train random layers, text without
its image, or end in the middle of sampling.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import nn

from data import Example, ImageRef
from mm_cpgd.errors import UserError
from mm_cpgd.policy.prompts import PromptEncoder

# A line of the table that transformers prints of a model that was loaded in part, and its colours.
REPORTED = re.compile(r"^(\S+)\s*\|\s*(MISSING|UNEXPECTED|MISMATCH)", re.MULTILINE)
ANSI = re.compile(r"\x1b\[[0-9;]*m")
# Inputs of the forward pass.
CROSS_ATTENTION = {"cross_attention_mask", "image_attention_mask"}
POSITIONS = {"position_ids"}
TRY_ANOTHER = "choose another family, such as Qwen2.5-VL or Qwen3-VL (docs/training.md)"
PROBE_QUESTION = "How many apples are there?"
NAMES_SHOWN = 3


def check_architecture(name: str, config: Any, kind: Any) -> None:
    """Refuse architectures that the local engine cannot sample from, before weights are loaded.

    Args:
        name: the config's ``policy.model``.
        config: the model's config from transformers.
        kind: the model's class; not checked if only the model's own code knows it.

    Raises:
        UserError: encoder and decoder, images read by cross-attention, a forward pass without positions, or
            no text.
    """
    inputs = _inputs(kind)
    reason = None
    if getattr(config, "is_encoder_decoder", False) or "decoder_input_ids" in inputs:
        reason = "it has a separate encoder, and completions are sampled and trained as one sequence"
    elif CROSS_ATTENTION & inputs:
        reason = "images are read by cross-attention, and not as tokens of the prompt"
    elif inputs and not POSITIONS & inputs:
        reason = "its forward pass takes no position_ids"
    elif hasattr(kind, "can_generate") and not kind.can_generate():
        reason = "it does not generate text"
    if reason:
        raise UserError(
            f"policy.model={name!r} is a {config.model_type!r} model, which is not supported: {reason}; "
            f"{TRY_ANOTHER}"
        )


def check_parts(name: str, model: Any) -> None:
    """Refuse a model without the base model that training and sampling look for.

    Raises:
        UserError: it has none.
    """
    if not isinstance(getattr(model, "model", None), nn.Module):
        raise UserError(
            f"policy.model={name!r} is a {model.config.model_type!r} model, which is not supported: "
            f"{type(model).__name__} has no base model under the name `model`; {TRY_ANOTHER}"
        )


def check_head(name: str, model: Any) -> None:
    """Refuse to train a model whose log-probabilities cannot be computed from hidden states.

    Raises:
        UserError: it has no language head.
    """
    if model.get_output_embeddings() is None:
        raise UserError(
            f"policy.model={name!r} is a {model.config.model_type!r} model, which cannot be trained: "
            f"{type(model).__name__} names no language head; {TRY_ANOTHER}"
        )


def check_complete(name: str, info: Mapping[str, Any], reports: Sequence[str] = ()) -> None:
    """Refuse a model that was loaded in part.

    Tied weights, and names that transformers knows to ignore, are not among ``info``.

    Args:
        name: the config's ``policy.model``.
        info: the ``output_loading_info`` of transformers.
        reports: the lines of its table; of a model with adapters, ``info`` is of the adapters alone.

    Raises:
        UserError: tensors are missing, superfluous, or of another shape.
    """
    missing, unexpected = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    mismatched = sorted(info.get("mismatched_keys", ()))
    found = []
    if missing:
        found.append(f"{_count(missing)} missing, and would be random ({_shown(missing)})")
    if mismatched:
        shapes = [f"{key}: {list(stored)}, not {list(wanted)}" for key, stored, wanted in mismatched]
        found.append(f"{_count(mismatched)} of another shape ({_shown(shapes)})")
    if unexpected:
        found.append(f"{_count(unexpected)} not of this architecture ({_shown(unexpected)})")
    if not found and reports:
        found.append(f"{_count(reports)} not as the architecture needs them ({_shown(list(reports))})")
    if not found:
        return
    advice = "use the complete folder that belongs to its config.json, or download the model again"
    if pair := _other_prefix(missing, unexpected):
        advice = f"the names begin with {pair[0]!r} where {pair[1]!r} is expected: rename the tensors"
    elif first := _odd_prefix(missing, unexpected):
        advice = f"all these names begin with {first!r}: rename the tensors"
    raise UserError(f"policy.model={name!r} does not load completely: {'; '.join(found)}; {advice}")


def check_finite(name: str, model: nn.Module) -> None:
    """Refuse weights that are not numbers.

    Raises:
        UserError: a parameter holds NaN or an infinity.
    """
    bad = [key for key, parameter in model.named_parameters() if not _is_finite(parameter)]
    if bad:
        raise UserError(
            f"policy.model={name!r}: {_count(bad)} not finite (NaN or infinity: {_shown(bad)}); "
            "download or export the model again"
        )


def check_template(name: str, encoder: PromptEncoder, image_token: int | None) -> None:
    """Encode a question with an image, and refuse a processor that loses one of them.

    Args:
        name: the config's ``policy.model``.
        encoder: with the model's processor.
        image_token: id of the token that the model replaces by the image, None if its config has none.

    Raises:
        UserError: the chat template cannot be rendered, or has no place for the question or the image.
    """
    image = ImageRef("blank", lambda: Image.new("RGB", (224, 224)))
    example = Example("probe", PROBE_QUESTION, "", images=(image,))
    without = None
    try:
        with_image = encoder.chat(example)
        with contextlib.suppress(Exception):  # a template may insist on an image
            without = encoder.chat(Example("probe", PROBE_QUESTION, ""))
    except Exception as error:  # templates are programs, and raise anything
        raise UserError(
            f"policy.model={name!r}: its chat template cannot be used: {_text(error)}; copy "
            "chat_template.jinja and the processor's other files from the original model"
        ) from error
    lost = "question" if PROBE_QUESTION not in with_image else "image" if with_image == without else None
    if lost:
        raise UserError(
            f"policy.model={name!r}: its chat template writes no place for the {lost}; copy "
            "chat_template.jinja from the original model"
        )
    try:
        tokens = encoder.encode(example).input_ids
    except Exception as error:  # processors check their files only here, with errors of any kind
        raise UserError(
            f"policy.model={name!r}: its processor cannot encode an image: {_text(error)}; copy the "
            "chat template, the processor's and the tokenizer's files from the original model"
        ) from error
    if image_token is not None and image_token not in tokens:
        raise UserError(
            f"policy.model={name!r}: the image becomes no token {image_token}, by which config.json names "
            "its place; copy the chat template, the tokenizer's and the processor's files and config.json "
            "from the same model"
        )


@contextlib.contextmanager
def without_loading_report() -> Iterator[list[str]]:
    """Keep transformers from printing what ``check_complete`` reports; yield the lines of its table."""
    logger = logging.getLogger("transformers.modeling_utils")
    reports: list[str] = []

    def other(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if "LOAD REPORT" in text:
            found = REPORTED.findall(ANSI.sub("", text))
            reports.extend(f"{name} {status.lower()}" for name, status in found)
        return not re.search("LOAD REPORT|This checkpoint seem", text)

    logger.addFilter(other)
    try:
        yield reports
    finally:
        logger.removeFilter(other)


def _inputs(kind: Any) -> set[str]:
    """Return the names of the inputs of the class's forward pass; empty if there is no single class."""
    forward = getattr(kind, "forward", None)
    return set() if forward is None else set(inspect.signature(forward).parameters)


def _is_finite(parameter: nn.Parameter) -> bool:
    value = parameter.detach()
    if not value.is_floating_point() or value.element_size() < 2 or not value.numel():
        return True
    # NaN and infinities are found without a second tensor of the size of the weight.
    return all(bool(extreme.isfinite()) for extreme in torch.aminmax(value))


def _count(names: Collection[Any]) -> str:
    return "1 tensor is" if len(names) == 1 else f"{len(names):,} tensors are"


def _shown(names: list[str]) -> str:
    more = f" and {len(names) - NAMES_SHOWN:,} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more


def _other_prefix(missing: list[str], unexpected: list[str]) -> tuple[str, str] | None:
    """Return (stored, expected) if the unexpected names are missing ones under another prefix."""
    pairs = {_heads(name, wanted) for name in unexpected[:1] for wanted in missing}
    for stored, expected in sorted(pairs):
        renamed = {expected + key.removeprefix(stored) for key in unexpected if key.startswith(stored)}
        if len(renamed) == len(unexpected) and renamed <= set(missing):
            return stored, expected
    return None


def _odd_prefix(missing: list[str], unexpected: list[str]) -> str | None:
    """Return the first component that all unexpected names share and no missing one has."""
    firsts = {key.split(".")[0] for key in unexpected} - {key.split(".")[0] for key in missing}
    if len(unexpected) < 2 or len(unexpected) < len(missing) // 2 or len(firsts) != 1:
        return None
    prefix = f"{firsts.pop()}."
    return prefix if all(key.startswith(prefix) for key in unexpected) else None


def _heads(one: str, other: str) -> tuple[str, str]:
    """Return what is left of two names without their longest common end of whole components."""
    ones, others = one.split("."), other.split(".")
    common = 0
    while common < min(len(ones), len(others)) and ones[-1 - common] == others[-1 - common]:
        common += 1
    heads = (".".join(part[: len(part) - common]) for part in (ones, others))
    first, second = (f"{head}." if head else "" for head in heads)
    return first, second


def _text(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:300]
