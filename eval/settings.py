"""Settings of an evaluation, stored with its result so that it can be repeated, and their differences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from eval.benchmarks import find_benchmark
from eval.results import read_result
from mm_cpgd.errors import UserError

# Where things lie may differ in a repetition; everything else would make it another evaluation.
PLACES = ("model", "data", "endpoint")


@dataclass(frozen=True)
class Settings:
    """One evaluation of one benchmark.

    Attributes:
        model: hub name, folder, ``embedded:…``, or what the server calls it.
        benchmark: a name, or ``path/to/file.py``.
        data: file or folder, None for the hub.
        split: of the data, None for the usual one.
        limit: rows to ask at most, the first ones.
        samples: answers to each question.
        protocols: the first one is the rows' own.
        controls: images to repeat it with.
        temperature: 0 takes the most probable token.
        top_p: share of the probability that is drawn from.
        max_new_tokens: of an answer, None for the benchmark's usual limit.
        seed: of drawn answers and of the shuffled control.
        system_prompt: None for the benchmark's own; empty for none.
        min_pixels: images are scaled up to this area.
        max_pixels: images are scaled down to this area.
        dtype: of the weights, ``auto``, ``float32``, ``bfloat16``.
        revision: of a hub name.
        engine: of the trainer's, ``local`` or ``vllm``, for a model on this machine.
        endpoint: address of an OpenAI-compatible server, None for a model on this machine.
    """

    model: str
    benchmark: str
    data: str | None = None
    split: str | None = None
    limit: int | None = None
    samples: int = 1
    protocols: tuple[str, ...] = ("official", "verifier")
    controls: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int | None = None
    seed: int = 0
    system_prompt: str | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    dtype: str = "auto"
    revision: str | None = None
    engine: str = "local"
    endpoint: str | None = None

    def stored(self) -> dict[str, Any]:
        """Return these settings as JSON."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()
        }


def settings_of(benchmarks: Sequence[str], given: Mapping[str, Any]) -> list[Settings]:
    """Return the settings of each benchmark; options that are None keep their default.

    With one folder of data for several benchmarks, each reads its own folder in it, if there is one.

    Raises:
        UserError: no model or no benchmark is named, or there is none of that name.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    if not benchmarks:
        raise UserError("name a benchmark: --benchmark mathvista,mathvision, or --like RESULT to repeat one")
    if "model" not in chosen:
        raise UserError(
            "name a model: --model NAME_OR_DIR, with --endpoint URL the name that the server knows"
        )
    return [
        Settings(**{**chosen, "benchmark": name, "data": _own_data(chosen.get("data"), name)})
        for name in dict.fromkeys(benchmarks)
    ]


def _own_data(data: str | None, benchmark: str) -> str | None:
    if data is None:
        return None
    own = Path(data).expanduser() / find_benchmark(benchmark).name
    return str(own) if own.is_dir() else data


def settings_like(result: str | Path, given: Mapping[str, Any]) -> tuple[Settings, Mapping[str, Any]]:
    """Return the settings that a stored result was made with, and everything stored beside them.

    Args:
        result: its folder, or ``summary.json`` in it.
        given: options of the command line, None where not given; only ``PLACES`` may be.

    Raises:
        UserError: no result there, one that was not generated here, or an option that would change it.
    """
    for name, value in given.items():
        if value is not None and name not in PLACES:
            option = "--" + {"protocols": "protocol", "controls": "control"}.get(name, name).replace("_", "-")
            raise UserError(f"{option} would change what --like repeats; leave it out, or leave --like out")
    folder = Path(result).expanduser()
    stored = read_result(folder.parent if folder.name == "summary.json" else folder).summary["settings"]
    places = {name: given[name] for name in PLACES if given.get(name) is not None}
    return _restored({**stored, **places}, folder), stored


def _restored(stored: Mapping[str, Any], folder: Path) -> Settings:
    known = {field.name for field in fields(Settings)}
    if not known <= set(stored):
        missing = ", ".join(sorted(known - set(stored)))
        raise UserError(
            f"{folder} does not say how its answers were generated (no {missing}); --like repeats what "
            "mm-cpgd eval has written"
        )
    try:
        return TypeAdapter(Settings).validate_python({name: stored[name] for name in known})
    except ValidationError as error:
        raise UserError(f"the settings in {folder} are damaged: {error}; evaluate again") from error


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what of a repetition is not as it was, one line each."""
    lines = []
    for name in ("model_id", "data_fingerprint", "images_fingerprint", "prompts_fingerprint"):
        if before.get(name) != now.get(name):
            lines.append(f"{name.replace('_', ' ')}: was {before.get(name)}, is {now.get(name)}")
    old, new = before.get("packages", {}), now.get("packages", {})
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            lines.append(f"{name}: was {old.get(name, 'not there')}, is {new.get(name, 'not there')}")
    return lines


# What two results are compared for, and where things lay: no reason for a warning.
EXPECTED = (
    "model", "model_id", "revision", "endpoint", "predictions", "predictions_fingerprint", "data", "command",
    "generation", "first_prompt", "protocols",
)  # fmt: skip


def differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the settings that differ, by dotted name, as (a's, b's); None where one has none.

    The names of ``EXPECTED`` and what is below them are left out.
    """
    first, second = dict(_flat(a)), dict(_flat(b))
    names = sorted(first.keys() | second.keys())
    return {
        name: (first.get(name), second.get(name))
        for name in names
        if first.get(name) != second.get(name) and not _expected(name)
    }


def _expected(name: str) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in EXPECTED)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
