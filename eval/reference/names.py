"""Names of models: which published model a hub name, folder, server or file of responses means."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from eval.results import SUMMARY

ALIASES = Path(__file__).parent / "models.yaml"
# Words of a hub name that papers leave out.
_SUFFIXES = ("instruct", "chat", "hf")
_CONFIGS = {"config.json": "_name_or_path", "adapter_config.json": "base_model_name_or_path"}


@dataclass(frozen=True)
class Found:
    """The published model that a result's model was recognised as.

    Attributes:
        model: its name in the tables.
        by: how it was recognised, for a message.
        derived: whether the result's model only names it as its origin; it may have been trained since.
    """

    model: str
    by: str
    derived: bool = False


def find_model(name: str, models: Iterable[str]) -> str | None:
    """Return the one of ``models`` that a name means, by the name's last part; None for none.

    Case and punctuation do not count. ``Qwen/Qwen2.5-VL-7B-Instruct`` means ``Qwen2.5-VL-7B``, because no
    other variant of it is in the tables; a quantised or further trained model has another name and is none.
    """
    known = _known(tuple(sorted(set(models))))
    key = _key(_tail(name))
    if key in known:
        return known[key]
    for suffix in _SUFFIXES:
        if key.endswith(suffix) and key.removesuffix(suffix) in known:
            return known[key.removesuffix(suffix)]
    return None


@cache
def _known(models: tuple[str, ...]) -> dict[str, str]:
    known = {_key(alias): model for model, names in _aliases().items() if model in models for alias in names}
    return known | {_key(model): model for model in models}


@cache
def _aliases() -> dict[str, list[str]]:
    aliases: dict[str, list[str]] = yaml.safe_load(ALIASES.read_text(encoding="utf-8"))
    return aliases


def _key(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _tail(name: str) -> str:
    """Return the last part of a hub name or path; of a snapshot in the hub's cache, the repository's name."""
    parts = [part for part in name.replace("\\", "/").split("/") if part]
    for part in parts:
        if part.startswith("models--"):
            return part.split("--")[-1]
    return parts[-1] if parts else ""


def recognise(settings: Mapping[str, Any], models: Iterable[str]) -> Found | None:
    """Return the published model of a result, from the settings stored with it; None for none.

    By the model's name, else by what its folder's configuration names as its origin, else by the name of the
    predictions file, which VLMEvalKit begins with the model's.
    """
    models = tuple(models)
    name = model_name(settings)
    if name and (found := find_model(name, models)):
        return Found(found, "by its name")
    if name and (origin := _origin(name)) and (found := find_model(origin, models)):
        return Found(found, f"its configuration names {origin} as its origin", derived=True)
    predictions = settings.get("predictions")
    if not name and predictions and (found := _of_file(Path(str(predictions)).stem, models)):
        return Found(found, f"by the name of the file {Path(str(predictions)).name}")
    return None


def model_name(settings: Mapping[str, Any]) -> str | None:
    """Return the name of the model that generated a result's responses; None if it is not stored."""
    name = generation_settings(settings).get("model")
    return str(name) if name else None


def generation_settings(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the settings that a result's responses were generated with.

    If the responses are another result's rows, these are that result's settings.
    """
    if settings.get("model") or not settings.get("predictions"):
        return settings
    summary = Path(str(settings["predictions"])).expanduser().parent / SUMMARY
    try:
        before = json.loads(summary.read_text(encoding="utf-8"))["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        return settings
    return before if isinstance(before, Mapping) and before.get("model") else settings


def _origin(name: str) -> str | None:
    """Return what the configuration in a local folder names as the model's origin."""
    for file, key in _CONFIGS.items():
        try:
            content = json.loads((Path(name).expanduser() / file).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(content, Mapping) and isinstance(content.get(key), str) and content[key]:
            return str(content[key])
    return None


def _of_file(stem: str, models: Iterable[str]) -> str | None:
    """Return the model that the stem of a file is named after: alone, or before a ``_``."""
    parts = stem.split("_")
    heads = ("_".join(parts[:count]) for count in range(len(parts), 0, -1))
    models = tuple(models)
    return next((found for head in heads if (found := find_model(head, models))), None)
