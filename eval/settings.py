"""Settings of an evaluation, stored with its result so that it can be repeated, and their differences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from eval.benchmarks import find_benchmark
from eval.results import read_result
from mm_cpgd.errors import UserError

# Locations may differ in a repetition; every other change would make it a different evaluation.
PLACES = ("model", "data", "endpoint")
# Settings whose option has another name.
_OPTIONS = {"protocols": "protocol", "controls": "control", "request": "setting"}
# Results of former versions do not have them.
_LATER = {
    "top_k", "min_p", "request", "declined", "repetition_penalty", "stop", "prompt", "text_only", "shots",
    "shots_data", "force_answer", "force_tokens", "tensor_parallel",
}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """Settings of the evaluation of one benchmark.

    Attributes:
        model: hub name, folder, ``embedded:…``, or its name on the server.
        benchmark: a name, ``path/to/file.py`` or ``path/to/file.yaml``.
        data: file or folder, None for the hub.
        split: split of the data, None for the one usually reported.
        limit: maximum number of rows, taken from the start.
        samples: responses per question.
        protocols: the first one is the headline protocol.
        controls: replacements of the images to repeat the evaluation with.
        temperature: 0 takes the most probable token.
        top_p: probability mass of the tokens that are sampled from.
        max_new_tokens: length limit of a response, None for the benchmark's usual limit.
        seed: seed of sampling and of the shuffled control.
        system_prompt: None for the benchmark's own; empty for none.
        min_pixels: images are scaled up to this area.
        max_pixels: images are scaled down to this area.
        dtype: number format of the weights, ``auto``, ``float32``, ``bfloat16``.
        revision: revision of a hub name.
        engine: rollout engine of a model on this machine, ``local`` or ``vllm``.
        endpoint: address of an OpenAI-compatible server, or several separated by commas; None for a model
            on this machine.
        top_k: number of tokens that are sampled from, 0 for all.
        min_p: least probability of these, relative to the most probable token.
        request: keys added to every request to the server; one that is None leaves a key out.
        declined: how a refusal, a filtered, an empty reply and a tool call count, ``unscored`` or ``wrong``.
        repetition_penalty: factor by which repeated tokens get less likely, 1 for none; not with ``local``.
        stop: texts that end a response.
        prompt: ``published`` wording, ``ours``, or a template with ``{question}``.
        text_only: leave out all images.
        shots: worked examples before each question.
        shots_data: file or folder of these, in the benchmark's layout.
        force_answer: text with which a response that was cut off is continued, ``ours`` for this project's;
            None leaves it as it is.
        force_tokens: length limit of the continuation.
        tensor_parallel: GPUs that share one vLLM.
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
    top_k: int = 0
    min_p: float = 0.0
    request: Mapping[str, Any] = field(default_factory=dict)
    declined: str = "unscored"
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    prompt: str = "published"
    text_only: bool = False
    shots: int = 0
    shots_data: str | None = None
    force_answer: str | None = None
    force_tokens: int = 64
    tensor_parallel: int = 1

    @property
    def endpoints(self) -> list[str]:
        """Addresses of the servers; empty for a model on this machine."""
        return [one.strip() for one in (self.endpoint or "").split(",") if one.strip()]

    def stored(self) -> dict[str, Any]:
        """Return these settings as JSON; later ones only if set, as results without them had the default."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if name not in _LATER - {"prompt"} or value != _DEFAULTS[name]
        }


_DEFAULTS = asdict(Settings(model="", benchmark=""))


def build_settings(benchmarks: Sequence[str], given: Mapping[str, Any]) -> list[Settings]:
    """Return the settings for each benchmark; options that are None keep their default.

    With one data folder for several benchmarks, each one reads its own subfolder, if there is one.

    Raises:
        UserError: no model or no benchmark is named, or there is none of that name.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    if not benchmarks:
        raise UserError("name a benchmark: --benchmark mathvista,mathvision, or repeat one: --like RESULT")
    if "model" not in chosen:
        raise UserError("name a model: --model NAME_OR_DIR, with --endpoint URL its name on the server")
    return [
        Settings(**{**chosen, "benchmark": name, "data": _own_data(chosen.get("data"), name)})
        for name in dict.fromkeys(benchmarks)
    ]


def _own_data(data: str | None, benchmark: str) -> str | None:
    if data is None:
        return None
    own = Path(data).expanduser() / find_benchmark(benchmark).name
    return str(own) if own.is_dir() else data


def settings_from_result(result: str | Path, given: Mapping[str, Any]) -> tuple[Settings, Mapping[str, Any]]:
    """Return the settings of a stored result, and everything stored with them.

    Args:
        result: its folder, or ``summary.json`` in it.
        given: options of the command line, None where not given; only ``PLACES`` may be.

    Raises:
        UserError: no result there, one without generation settings, or an option that would change it.
    """
    for name, value in given.items():
        if value is not None and name not in PLACES:
            option = _OPTIONS.get(name, name).replace("_", "-")
            raise UserError(f"--{option} would change what --like repeats; omit it, or omit --like")
    folder = Path(result).expanduser()
    stored = read_result(folder.parent if folder.name == "summary.json" else folder).summary["settings"]
    places = {name: given[name] for name in PLACES if given.get(name) is not None}
    return _restored({**stored, **places}, folder), stored


def _restored(stored: Mapping[str, Any], folder: Path) -> Settings:
    known = {one.name for one in fields(Settings)}
    there = known & set(stored)
    if missing := known - there - _LATER:
        raise UserError(
            f"{folder} does not say how its responses were generated (no {', '.join(sorted(missing))}); "
            "--like repeats results of mm-cpgd eval"
        )
    values = {name: stored[name] for name in there}
    if "prompt" not in values and not find_benchmark(values["benchmark"]).prompt_is_published:
        values["prompt"] = "ours"  # the default of former versions
    try:
        return TypeAdapter(Settings).validate_python(values)
    except ValidationError as error:
        raise UserError(f"the settings in {folder} are damaged: {error}; evaluate again") from error


def repetition_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what differs between a stored result and its repetition, one line each."""
    lines = []
    for name in (
        "model_id", "benchmark_fingerprint", "data_fingerprint", "images_fingerprint", "prompts_fingerprint",
    ):  # fmt: skip
        if before.get(name) != now.get(name):
            lines.append(f"{name.replace('_', ' ')}: was {before.get(name)}, is {now.get(name)}")
    old, new = before.get("packages", {}), now.get("packages", {})
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            lines.append(f"{name}: was {old.get(name, 'not installed')}, is {new.get(name, 'not installed')}")
    return lines


# Expected to differ between compared results: what is compared, and locations. No reason for a warning.
EXPECTED = (
    "model", "model_id", "revision", "endpoint", "predictions", "predictions_fingerprint", "data", "command",
    "generation", "first_prompt", "protocols", "tensor_parallel",
)  # fmt: skip


def settings_differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the settings that differ, by dotted name, as (a's, b's); None where one is absent.

    The names of ``EXPECTED``, and those below them, are excluded.
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
