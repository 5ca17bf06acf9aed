"""Rows of a run: read from a source, checked, and the unusable ones quarantined with their reasons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from data import (
    Example,
    ExampleSet,
    Quarantined,
    TooManyBadRows,
    VideoLimits,
    load_examples,
    write_quarantine,
)
from mm_cpgd.config.schema import DataConfig, PolicyConfig, RunConfig, SourceConfig
from mm_cpgd.tracking.files import writing

if TYPE_CHECKING:  # mm_cpgd.policy loads torch, which ``mm-cpgd data check`` does without
    from mm_cpgd.policy import PromptEncoder

Check = Callable[[Example], str | None]
"""Returns why an example cannot be used, or None."""


def load_rows(
    config: RunConfig,
    source: SourceConfig,
    encoder: PromptEncoder,
    quarantine: Path | None,
    checks: Sequence[Check] = (),
) -> ExampleSet:
    """Read and check the rows of a source; unusable ones go to the quarantine file with their reasons."""
    try:
        loaded = read_source(
            source,
            config.data,
            config.policy,
            max_bad_share=config.data.max_bad_share,
            extra_checks=[length_check(encoder, config.data.max_prompt_tokens), *checks],
        )
    except TooManyBadRows as error:
        if quarantine:
            _write(quarantine, error.quarantined)
        raise
    if quarantine:
        _write(quarantine, loaded.quarantined)
    return loaded


def _write(file: Path, rows: Sequence[Quarantined]) -> None:
    with writing(file):
        write_quarantine(file, rows)


def read_source(
    source: SourceConfig,
    data: DataConfig,
    policy: PolicyConfig | None = None,
    *,
    max_bad_share: float,
    extra_checks: Sequence[Check] = (),
    progress: Callable[[int, int], None] | None = None,
) -> ExampleSet:
    """Call ``data.load_examples`` with the settings of a config; ``policy`` says which frames are decoded.

    Raises:
        DataError: nothing to read, or a mapping that fits no row.
        TooManyBadRows: more than ``max_bad_share`` of the rows is unusable.
    """
    return load_examples(
        source.path,
        columns=source.columns,
        split=source.split,
        name=source.name,
        limit=source.limit,
        offset=source.offset,
        seed=source.seed,
        max_bad_share=max_bad_share,
        max_image_pixels=data.max_image_pixels,
        check_images=data.check_images,
        video=VideoLimits(**policy.video.model_dump()) if policy else None,
        extra_checks=extra_checks,
        progress=progress,
    )


def length_check(encoder: PromptEncoder, limit: int) -> Check:
    """Return a check for prompts that are too long: they are excluded, never truncated."""

    def check(example: Example) -> str | None:
        try:
            length = encoder.length(example)
        except ValueError as error:  # for instance an image that is 200 times as wide as high
            return f"the model's processor refuses it: {error}"
        return (
            f"the prompt has {length:,} tokens, data.max_prompt_tokens is {limit:,}"
            if length > limit
            else None
        )

    return check
