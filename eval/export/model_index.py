"""The ``model-index`` of a model card: results as metadata that the Hugging Face hub reads.

Written by ``huggingface_hub`` (``EvalResult``, ``ModelCardData``), in the form that the hub checks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.benchmarks import benchmark_of
from eval.export.matrix import column_of, result_name
from eval.results import read_result
from mm_cpgd.errors import UserError

if TYPE_CHECKING:
    from huggingface_hub import EvalResult as HubResult

TASK = "image-text-to-text"


def model_index(
    folders: Sequence[str | Path], *, protocol: str | None = None, name: str | None = None
) -> str:
    """Return the ``model-index`` as YAML, to be put into the front matter of a model card.

    Args:
        folders: results of one model; controls with replaced images are left out.
        protocol: None for all protocols of each result.
        name: the model's name; None for the last part of the stored one.

    Raises:
        UserError: results of several models without a name, only controls, or a protocol that a result lacks.
    """
    from huggingface_hub import ModelCardData

    read = [(str(folder), read_result(folder).summary) for folder in folders]
    summaries = [one for one in read if not one[1].get("settings", {}).get("control")]
    if not summaries:
        raise UserError("only controls with replaced images are given; name the model's own results")
    results = _apart([one for folder, summary in summaries for one in _results(folder, summary, protocol)])
    card = ModelCardData(model_name=name or _only_name(summaries), eval_results=results)
    return f"{card.to_yaml().strip()}\n"


def _only_name(summaries: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    names = list(dict.fromkeys(result_name(folder, summary) for folder, summary in summaries))
    if len(names) > 1:
        raise UserError(
            f"the results are of {len(names)} models: {', '.join(names)}; a card is of one, "
            "export its results alone or name it: --name"
        )
    return names[0].rstrip("/").rsplit("/", 1)[-1]


def _results(folder: str, summary: Mapping[str, Any], protocol: str | None) -> Iterator[HubResult]:
    """Yield accuracy by protocol; results without a score are left out."""
    from huggingface_hub import EvalResult as HubResult

    name_here = summary["benchmark"]
    benchmark = benchmark_of(summary)
    title = (benchmark and benchmark.title) or name_here
    dataset = (benchmark and benchmark.hub) or name_here
    usual = benchmark.split if benchmark and benchmark.hub else None
    for name in [protocol] if protocol else summary["protocols"]:
        column = column_of(summary, name, folder)
        overall = summary["protocols"][name]["overall"]
        if overall["accuracy"] is None:
            continue
        arguments = {
            "protocol": name,
            "n": overall["total"],
            "interval_95": [_percent(end) for end in overall["interval"]],
            **({"judge": column.judge} if column.judge else {}),
        }
        yield HubResult(
            task_type=TASK, dataset_type=dataset, dataset_name=title, dataset_split=column.split or usual,
            metric_type="accuracy", metric_value=_percent(overall["accuracy"]),
            metric_name=f"accuracy in percent ({name}{f', {column.judge}' if column.judge else ''})",
            metric_args=arguments,
        )  # fmt: skip


def _apart(results: Sequence[HubResult]) -> list[HubResult]:
    """Return the results; benchmarks that share a data set on the hub, which merges them, get their names.

    MMMU-Pro's two settings are such, and MathVerse's versions.
    """
    first: dict[Any, str] = {}
    for one in results:
        if first.setdefault(one.unique_identifier, one.dataset_name) != one.dataset_name:
            one.dataset_config = one.dataset_name
    return list(results)


def _percent(share: float) -> float:
    return round(100 * share, 2)
