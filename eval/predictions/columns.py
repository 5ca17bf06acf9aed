"""Columns of predictions files: the names that toolkits give them, and which of them a file has."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from data import DataError
from data.readers import RawRow
from eval.predictions.cells import canonical_id, is_absent
from mm_cpgd.errors import UserError
from rewards.messages import nearest

PLAIN = ("id", "response", "sample", "extraction", "finished", "tokens")
NEEDED = (
    f"a prediction needs the columns id and response, and may have {', '.join(PLAIN[2:])}; columns with "
    "other names are named by --id-column and --response-column"
)
# Content of the reply in the output file of an OpenAI batch, and of vLLM's run_batch.
_BATCH = "response.body.choices.0.message.content"
# The same where a script stores the reply, or its message.
_REPLIES = (
    "response.choices.0.message.content", "choices.0.message.content", "response.message.content",
    "response.content", "response.text",
)  # fmt: skip
_IDS = (
    "id", "index", "question_id", "pid", "qid", "sample_id", "problem_id", "custom_id", "idx", "sample_index",
)  # fmt: skip
# By field, the usual name first. Beside this project's: VLMEvalKit's index and prediction
# (vlmeval/inference.py), LLaVA's question_id, prompt and text (llava/eval/model_vqa.py), MathVista's pid, and
# of lmms-eval and lm-eval `doc`, the row of the data, `input`, the prompt, and the lists of responses
# (lmms_eval/evaluator.py, lmms_eval/loggers/evaluation_tracker.py).
NAMES: Mapping[str, Sequence[str]] = {
    "id": (*_IDS, *(f"doc.{name}" for name in _IDS)),
    "response": (
        _BATCH, *_REPLIES, "response", "prediction", "model_answer", "model_response", "resps",
        "filtered_resps", "output", "model_output", "completion", "generated_text", "generation", "pred",
        "text", "responses", "predictions", "outputs", "model_responses", "completions", "generations",
    ),
    "sample": ("sample",),
    "question": ("question", "doc.question", "prompt", "input", "query", "problem"),
    "answer": ("answer", "doc.answer", "gold", "target", "ground_truth", "gt_answer"),
    "extraction": ("extraction",),
    "finished": ("finished",),
    "tokens": ("tokens", "token_counts.0.output_tokens"),
    "error": ("error", "failure"),
}  # fmt: skip
# Those that a user can name; a gold answer is compared only.
FIELDS = tuple(name for name in NAMES if name != "answer")
# The number of the row in the data, which lmms-eval writes without the row's id.
POSITION = "doc_id"
# The columns of each field, the one to use first; a row may lack the first one and have another.
Columns = Mapping[str, Sequence[str]]


def columns_of(
    rows: Sequence[RawRow], named: Mapping[str, str], ids: Collection[str] | None, where: str
) -> Columns:
    """Return the columns of every field that a file has.

    Args:
        rows: the file's rows.
        named: columns by field as the user names them.
        ids: the data's ids, which decide between several columns of ids; None if unknown.
        where: the file, for messages.

    Raises:
        UserError: an unknown field.
        DataError: a named column that no row has.
    """
    unknown = [field for field in named if field not in FIELDS]
    if unknown:
        raise UserError(f"predictions have no field {unknown[0]!r}: {nearest(unknown[0], FIELDS)}")
    found = {
        field: tuple(name for name in names if any(has(row.values, name) for row in rows))
        for field, names in NAMES.items()
    }
    if ids is not None:
        found["id"] = _ids_first(rows, found["id"], ids)
    for field, name in named.items():
        if not any(has(row.values, name) for row in rows):
            there = list(dict.fromkeys(str(column) for row in rows for column in row.values))
            raise DataError(f"{where} has no column {name!r}: {nearest(name, there)}")
        found[field] = (name,)
    return found


def _ids_first(rows: Sequence[RawRow], names: Sequence[str], ids: Collection[str]) -> tuple[str, ...]:
    """Return the column with the most ids of the data; none if no row has one but all have a position."""
    known = {canonical_id(one) for one in ids}
    counts = {name: sum(_id_of(row.values, name) in known for row in rows) for name in names}
    best = max(counts, key=lambda name: counts[name], default="")
    if not counts.get(best) and all(has(row.values, POSITION) for row in rows):
        return ()
    return (best,) if best else ()


def _id_of(values: Mapping[str, Any], name: str) -> str | None:
    value = lookup(values, name)
    return None if is_absent(value) or isinstance(value, (Mapping, list)) else canonical_id(value)


def value_of(values: Mapping[str, Any], columns: Columns, field: str) -> Any:
    """Return a row's value of a field, by the first of its columns that the row has; None if none."""
    return next((lookup(values, name) for name in columns.get(field, ()) if has(values, name)), None)


def has(values: Mapping[str, Any], name: str) -> bool:
    """Return whether a row has a column, with or without a value, or a path with a value."""
    return name in values or ("." in name and lookup(values, name) is not None)


def lookup(values: Mapping[str, Any], name: str) -> Any:
    """Return the value of a column, or of a path into nested values such as ``doc.pid``; None if absent."""
    if name in values:
        return values[name]
    found: Any = values
    for part in name.split("."):
        if isinstance(found, Mapping):
            found = found.get(part)
        elif isinstance(found, Sequence) and not isinstance(found, str) and part.isdecimal():
            found = found[int(part)] if int(part) < len(found) else None
        else:
            return None
    return found
