"""``mm-cpgd data check``: read every row as training does, and report which rows can be used."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from data import (
    DataError,
    Example,
    ExampleSet,
    Quarantined,
    TooManyBadRows,
    shared_rows,
    write_quarantine,
)
from data.images import image_size
from mm_cpgd.config.loading import load_config
from mm_cpgd.config.schema import DataConfig, PolicyConfig, SourceConfig
from mm_cpgd.errors import UserError
from mm_cpgd.tracking.progress import slow_bar
from mm_cpgd.training.rows import length_check, read_source

if TYPE_CHECKING:
    from mm_cpgd.policy import PromptEncoder

# Unusable rows that are printed; the others are counted, and written with --output.
PRINTED_ROWS = 5
# Largest number of images whose sizes are read, evenly spaced over the rows; generated ones are drawn for it.
MEASURED_IMAGES = 2000
# (text that a reason contains, kind of reason), most specific first.
REASON_KINDS = (
    ("decompression bomb", "image with too many pixels"),
    ("web address", "image at a web address"),
    ("relative path, but", "image with a relative path"),
    ("does not exist", "image missing"),
    ("is not a file", "image missing"),
    ("cannot be decoded", "image broken"),
    ("is none of", "image of another format"),
    ("control token", "control token in the text"),
    ("<video", "video marker without a video"),
    ("but the row has", "image marker without an image"),
    ("is already used by", "id used twice"),
    ("data.max_prompt_tokens", "prompt too long"),
    ("processor refuses", "image refused by the processor"),
    ("empty answer", "empty answer"),
    ("empty question", "empty question"),
    ("surrogate pair", "half a surrogate pair"),
    ("reads none here", "video for a model that reads none"),
    ("is damaged", "video damaged"),
    ("ends early", "video damaged"),
    ("cannot be read", "video that cannot be read"),
    ("s; its clip from", "clip of a video that is empty"),
    ("without their rate", "frames of a video without their rate"),
)


def check_data(
    path: str,
    columns: list[str],
    split: str | None,
    name: str | None,
    limit: int | None,
    output: Path | None,
    console: Console,
    model: str | None = None,
) -> bool:
    """Print statistics of the rows, and the rows that cannot be used.

    Args:
        path: a file, a folder, a hub name or ``generated:…``; or a config (.yaml), whose sources are checked.
        columns: mappings of the form ``field=column``.
        split: split of a dataset.
        name: configuration of a hub dataset.
        limit: largest number of rows to read.
        output: file for the unusable rows, or None.
        console: receives the output.
        model: of which the processor checks the prompts; None: that of a config, else none.

    Returns:
        Whether every row can be used.

    Raises:
        UserError, DataError: nothing can be read, or the options contradict each other.
    """
    sources, data, policy = _sources(path, columns, split, name, limit)
    if model is not None:
        policy = (policy or PolicyConfig(model=model)).model_copy(update={"model": model})
    encoder = _encoder(policy, console) if policy else None
    results = []
    for source in sources:
        rows = read_all_rows(source, data, console, policy)
        if encoder is not None:
            rows = _check_prompts(rows, encoder, data.max_prompt_tokens, source, console)
        _print_rows(source, rows, console)
        results.append(rows)
    if len(results) == 2 and (shared := shared_rows(results[0].examples, results[1].examples)):
        console.print(f"{len(shared):,} of {len(results[1].examples):,} held-out rows are training rows")
    bad = [row for rows in results for row in rows.quarantined]
    if output is not None:
        write_quarantine(output, bad)
        console.print(Text(f"{len(bad):,} unusable rows: {output}"), soft_wrap=True)
    return not bad


def _encoder(policy: PolicyConfig, console: Console) -> PromptEncoder | None:
    """Return what encodes the prompts; without the model's processor None, with a line."""
    from mm_cpgd.policy import PromptEncoder, load_processor  # imports torch, which rows alone do not need

    try:
        processor = load_processor(policy)
    except UserError as error:
        console.print(Text(f"the rows are not checked by a processor: {error}"), soft_wrap=True)
        return None
    return PromptEncoder.of(policy, processor)


def _check_prompts(
    rows: ExampleSet, encoder: PromptEncoder, limit: int, source: SourceConfig, console: Console
) -> ExampleSet:
    """Return the rows without those that the processor refuses or whose prompt is too long."""
    check = length_check(encoder, limit)
    good, bad = [], [*rows.quarantined]
    with slow_bar(console, f"encoding {source.path}") as report:
        for done, example in enumerate(rows.examples, 1):
            if reason := check(example):
                bad.append(Quarantined(example.id, example.source, reason))
            else:
                good.append(example)
            report(done, len(rows.examples))
    return ExampleSet(good, bad, rows.total)


def read_all_rows(
    source: SourceConfig, data: DataConfig, console: Console, policy: PolicyConfig | None = None
) -> ExampleSet:
    """Read and check the rows of a source, however many are unusable; shows a bar if it takes long."""
    try:
        with slow_bar(console, f"reading {source.path}") as report:
            return read_source(source, data, policy, max_bad_share=1.0, progress=report)
    except TooManyBadRows as error:
        return ExampleSet([], error.quarantined, len(error.quarantined))


def quantiles(values: Sequence[float]) -> str:
    """Return minimum, median, 95 % and maximum as one line of text."""
    if not values:
        return "–"
    ordered = sorted(values)
    places = (0, _rank(0.5, len(values)), _rank(0.95, len(values)), -1)
    names = ("min", "median", "95 %", "max")
    return "  ".join(f"{name} {ordered[place]:,}" for name, place in zip(names, places, strict=True))


def reasons_table(rows: ExampleSet) -> list[tuple[str, str]]:
    """Return (kind of reason, number of rows), most frequent first."""
    kinds = Counter(reason_kind(row.reason) for row in rows.quarantined)
    return [(kind, f"{count:,}") for kind, count in kinds.most_common()]


def first_bad_rows(rows: ExampleSet) -> Text:
    """Return the first few unusable rows, one per line."""
    bad = rows.quarantined
    lines = [f"  {row.source}: {row.reason}" for row in bad[:PRINTED_ROWS]]
    return Text(
        "\n".join([*lines, f"  … and {len(bad) - PRINTED_ROWS:,} more"] if len(bad) > PRINTED_ROWS else lines)
    )


def reason_kind(reason: str) -> str:
    """Return the kind of a reason: its text without the names and numbers of the individual row."""
    for text, kind in REASON_KINDS:
        if text in reason:
            return kind.replace("image", "video", 1) if reason.startswith("video ") else kind
    return re.sub(r"'[^']*'|\d[\d,.]*", "…", reason)[:80]


def _rank(share: float, count: int) -> int:
    """Return the index of the nearest-rank percentile."""
    return max(math.ceil(share * count) - 1, 0)


def _sources(
    path: str, columns: list[str], split: str | None, name: str | None, limit: int | None
) -> tuple[list[SourceConfig], DataConfig, PolicyConfig | None]:
    if Path(path).suffix in (".yaml", ".yml"):
        if columns or split or name:
            raise UserError(
                f"{path} is a config, which sets columns, split and name itself; leave out --column, "
                "--split and --name, or give the data file"
            )
        config = load_config(path)
        data = config.data
        given = [source for source in (data.train, data.eval) if source is not None]
        limited = [s if limit is None else s.model_copy(update={"limit": limit}) for s in given]
        return limited, data, config.policy
    mapping = column_mapping(columns)
    source = SourceConfig(path=path, columns=mapping, split=split, name=name, limit=limit)
    return [source], DataConfig(train=source), None


def column_mapping(columns: Sequence[str]) -> dict[str, str]:
    """Return the mapping of texts ``field=column``. Raises ``UserError`` for any other form."""
    return dict(_column(text) for text in columns)


def _column(text: str) -> tuple[str, str]:
    field, equals, column = text.partition("=")
    if not (field.strip() and equals and column.strip()):
        raise UserError(f"--column {text!r} is not of the form field=column, for instance answer=gold")
    return field.strip(), column.strip()


def _print_rows(source: SourceConfig, rows: ExampleSet, console: Console) -> None:
    console.print(Text(source.path, style="bold"), soft_wrap=True)
    table = Table(show_header=False)
    for line in (
        ("rows", f"{rows.total:,}"),
        ("usable", f"{len(rows.examples):,}"),
        ("unusable", f"{len(rows.quarantined):,}"),
        *((f"  {kind}", count) for kind, count in reasons_table(rows)),
        *_example_lines(rows.examples, console),
    ):
        table.add_row(*map(Text, line))
    console.print(table)
    if rows.quarantined:
        console.print(first_bad_rows(rows))


def _example_lines(examples: Sequence[Example], console: Console) -> Iterator[tuple[str, str]]:
    """Yield (name, value) of the usable rows: images, lengths, sizes."""
    if not examples:
        return
    images = Counter(len(example.images) for example in examples)
    yield "images per row", "  ".join(f"{count}: {rows:,} rows" for count, rows in sorted(images.items()))
    yield "question, characters", quantiles([len(example.question) for example in examples])
    yield "answer, characters", quantiles([len(example.answer) for example in examples])
    for name, count in (
        ("with choices", sum(bool(example.choices) for example in examples)),
        ("with a solution", sum(bool(example.solution) for example in examples)),
        ("with a system turn", sum(bool(example.system) for example in examples)),
    ):
        if count:
            yield name, f"{count:,}"
    yield from _video_lines(examples, console)
    total = sum(len(example.images) for example in examples)
    sizes = _sizes(examples, console)
    if sizes:
        yield "images measured", f"{len(sizes):,} of {total:,}"
        yield "  width, pixels", quantiles([width for width, _ in sizes])
        yield "  height, pixels", quantiles([height for _, height in sizes])


def _video_lines(examples: Sequence[Example], console: Console) -> Iterator[tuple[str, str]]:
    """Yield (name, value) of the videos of the rows, of at most ``MEASURED_IMAGES`` of them."""
    videos = [video for example in examples for video in example.videos]
    if not videos:
        return
    counts = Counter(len(example.videos) for example in examples)
    yield "videos per row", "  ".join(f"{count}: {rows:,} rows" for count, rows in sorted(counts.items()))
    found = []
    chosen = videos[:: math.ceil(len(videos) / MEASURED_IMAGES)]
    with slow_bar(console, "measuring videos") as report:
        for done, video in enumerate(chosen, 1):
            try:
                found.append(video.timeline())
            except DataError:  # changed on disk since it was checked
                continue
            finally:
                report(done, len(chosen))
    yield "videos measured", f"{len(found):,} of {len(videos):,}"
    yield "  seconds", quantiles([round(one.duration, 1) for one in found])
    yield "  frames", quantiles([len(one) for one in found])
    yield "  frames unevenly spaced", f"{sum(one.rate is None for one in found):,}"
    yield "  width, pixels", quantiles([one.width for one in found])
    yield "  height, pixels", quantiles([one.height for one in found])


def _sizes(examples: Sequence[Example], console: Console) -> list[tuple[int, int]]:
    """Return (width, height) of at most ``MEASURED_IMAGES`` images."""
    images = [image for example in examples for image in example.images]
    chosen = images[:: math.ceil(len(images) / MEASURED_IMAGES)] if images else []
    sizes = []
    with slow_bar(console, "measuring images") as report:
        for done, image in enumerate(chosen, 1):
            try:
                sizes.append(image_size(image))
            except DataError:  # changed on disk since it was checked
                continue
            finally:
                report(done, len(chosen))
    return sizes
