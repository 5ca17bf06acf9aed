"""``mm-cpgd data check``: read every row as training would, and say what is there and what cannot be used."""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from data import DataError, Example, ExampleSet, TooManyBadRows, image_size, load_examples, write_quarantine
from mm_cpgd.config.loading import load_config
from mm_cpgd.config.schema import DataConfig, SourceConfig
from mm_cpgd.errors import UserError

# Bad rows that are shown; the others are counted, and written with --output.
SHOWN = 5
# Images whose sizes are read, spread evenly over the rows; drawn ones have to be drawn for it.
MEASURED = 2000
PATIENCE = 2.0
# (what a reason contains, what kind of reason it is), most telling first.
REASONS = (
    ("decompression bomb", "image with too many pixels"),
    ("web address", "image at a web address"),
    ("relative path, but", "image with a relative path"),
    ("does not exist", "image missing"),
    ("is not a file", "image missing"),
    ("cannot be decoded", "image broken"),
    ("is none of", "image of another format"),
    ("control token", "control token in the text"),
    ("but the row has", "image marker without an image"),
    ("is already that of", "id used twice"),
    ("data.max_prompt_tokens", "prompt too long"),
    ("processor refuses", "image refused by the processor"),
)

Report = Callable[[int, int], None]


def check_data(
    path: str,
    columns: list[str],
    split: str | None,
    name: str | None,
    limit: int | None,
    output: Path | None,
    console: Console,
) -> bool:
    """Print what the rows are like and which cannot be used.

    Args:
        path: a file, a folder, a hub name or ``generated:…``; or a config (.yaml), whose data is checked.
        columns: ``field=column`` each.
        split: of a dataset.
        name: configuration of a hub dataset.
        limit: rows to read at most.
        output: where to write the unusable rows, or None.
        console: to print to.

    Returns:
        Whether every row can be used.

    Raises:
        UserError, DataError: nothing can be read, or the options do not fit.
    """
    sources, data = _sources(path, columns, split, name, limit)
    results = []
    for source in sources:
        rows = read_all(source, data, console)
        _print_rows(source, rows, console)
        results.append(rows)
    bad = [row for rows in results for row in rows.quarantined]
    if output is not None:
        write_quarantine(output, bad)
        console.print(Text(f"{len(bad):,} unusable rows: {output}"), soft_wrap=True)
    return not bad


def read_all(source: SourceConfig, data: DataConfig, console: Console) -> ExampleSet:
    """Read and check the rows of a source, however many of them are bad, with a bar if it takes long."""
    try:
        with slow_bar(console, f"reading {source.path}") as report:
            return load_examples(
                source.path,
                columns=source.columns,
                split=source.split,
                name=source.name,
                limit=source.limit,
                offset=source.offset,
                seed=source.seed,
                max_bad_share=1.0,
                max_image_pixels=data.max_image_pixels,
                check_images=data.check_images,
                progress=report,
            )
    except TooManyBadRows as error:
        return ExampleSet([], error.quarantined, len(error.quarantined))


@contextmanager
def slow_bar(console: Console, title: str) -> Iterator[Report]:
    """Give a function that is told (done, all), and show a bar once two seconds have passed."""
    started = time.monotonic()
    # Not console itself: the bar is no part of what the command prints.
    screen = Console(stderr=True, quiet=console.quiet)
    with Progress(console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task(title, total=None, visible=False)

        def report(done: int, total: int) -> None:
            late = time.monotonic() - started > PATIENCE
            bar.update(task, completed=done, total=total, visible=late)

        yield report


def spread(values: Sequence[float]) -> str:
    """Return minimum, median, 95 % and maximum in one line."""
    if not values:
        return "–"
    ordered = sorted(values)
    places = (0, _rank(0.5, len(values)), _rank(0.95, len(values)), -1)
    names = ("min", "median", "95 %", "max")
    return "  ".join(f"{name} {ordered[place]:,}" for name, place in zip(names, places, strict=True))


def reasons_table(rows: ExampleSet) -> list[tuple[str, str]]:
    """Return (kind of reason, how many rows), most frequent first."""
    kinds = Counter(kind_of(row.reason) for row in rows.quarantined)
    return [(kind, f"{count:,}") for kind, count in kinds.most_common()]


def first_bad_rows(rows: ExampleSet) -> Text:
    """Return the first few unusable rows, one a line."""
    bad = rows.quarantined
    lines = [f"  {row.source}: {row.reason}" for row in bad[:SHOWN]]
    return Text("\n".join([*lines, f"  … and {len(bad) - SHOWN:,} more"] if len(bad) > SHOWN else lines))


def kind_of(reason: str) -> str:
    """Return what kind of reason it is, without the names and numbers of the single row."""
    for part, kind in REASONS:
        if part in reason:
            return kind
    return re.sub(r"'[^']*'|\d[\d,.]*", "…", reason)[:80]


def _rank(share: float, count: int) -> int:
    """Return the index of the nearest-rank percentile."""
    return max(math.ceil(share * count) - 1, 0)


def _sources(
    path: str, columns: list[str], split: str | None, name: str | None, limit: int | None
) -> tuple[list[SourceConfig], DataConfig]:
    if Path(path).suffix in (".yaml", ".yml"):
        if columns or split or name:
            raise UserError(
                f"{path} is a config and says columns, split and name itself; leave --column, --split and "
                "--name out, or name the data file"
            )
        data = load_config(path).data
        given = [source for source in (data.train, data.eval) if source is not None]
        return [s if limit is None else s.model_copy(update={"limit": limit}) for s in given], data
    mapping = column_mapping(columns)
    source = SourceConfig(path=path, columns=mapping, split=split, name=name, limit=limit)
    return [source], DataConfig(train=source)


def column_mapping(columns: Sequence[str]) -> dict[str, str]:
    """Return the mapping of ``field=column`` each. Raises ``UserError`` for another form."""
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
        *_about(rows.examples, console),
    ):
        table.add_row(*map(Text, line))
    console.print(table)
    if rows.quarantined:
        console.print(first_bad_rows(rows))


def _about(examples: Sequence[Example], console: Console) -> Iterator[tuple[str, str]]:
    """Yield what the usable rows are like."""
    if not examples:
        return
    images = Counter(len(example.images) for example in examples)
    yield "images a row", "  ".join(f"{count}: {rows:,} rows" for count, rows in sorted(images.items()))
    yield "question, characters", spread([len(example.question) for example in examples])
    yield "answer, characters", spread([len(example.answer) for example in examples])
    for what, having in (
        ("with choices", sum(bool(example.choices) for example in examples)),
        ("with a solution", sum(bool(example.solution) for example in examples)),
    ):
        if having:
            yield what, f"{having:,}"
    total = sum(len(example.images) for example in examples)
    sizes = _sizes(examples, console)
    if sizes:
        yield "images measured", f"{len(sizes):,} of {total:,}"
        yield "  width, pixels", spread([width for width, _ in sizes])
        yield "  height, pixels", spread([height for _, height in sizes])


def _sizes(examples: Sequence[Example], console: Console) -> list[tuple[int, int]]:
    """Return (width, height) of at most ``MEASURED`` images."""
    images = [image for example in examples for image in example.images]
    chosen = images[:: math.ceil(len(images) / MEASURED)] if images else []
    sizes = []
    with slow_bar(console, "measuring images") as report:
        for done, image in enumerate(chosen, 1):
            try:
                sizes.append(image_size(image))
            except DataError:  # changed on disk since it was checked a moment ago
                continue
            finally:
                report(done, len(chosen))
    return sizes
