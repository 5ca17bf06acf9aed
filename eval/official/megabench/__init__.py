"""Official scoring of MEGA-Bench's core: the fields of a response by the task's metrics, then their mean.

A row's ``metric_info`` says how the response is parsed (the text after the last "Answer:", or a JSON object),
which metric compares each field with the gold answer, and how the fields' scores are aggregated: mean with
weights, or minimum. ``metrics.py`` has the metrics.

Source: Chen et al. 2024, arXiv 2410.10563; ``megabench/metrics`` of github.com/TIGER-AI-Lab/MEGA-Bench and
``lmms_eval/tasks/megabench/evaluator.py`` of github.com/EvolvingLMMs-Lab/lmms-eval. Differences from that
code:

* A row with a metric that is no rule here has no score: ``program_judge``, ``symbolic_planning_test``,
  ``constrained_generation``, ``nli_entailment``, ``gleu_cn``, ``bleu``, ``geo_proximity_location_dict``, the
  LLM's, and drawings in ASCII.
* JSON is found by matching brackets and read as JSON, else as a Python literal, within limits of length and
  nesting; there by a recursive regular expression with a time limit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from eval.official.megabench.metrics import METRICS
from eval.official.megabench.values import literal, structure
from rewards import Status, Verdict
from rewards.messages import short

_ANSWER = re.compile(r"\*\*?Answer:\s*(.*?)\*\*?|\bAnswer:\s*(.*)", re.DOTALL)
_AT_LINE_START = re.compile(r"^(?:\*\*Answer:|Answer:)\s*(.+)", re.MULTILINE)
_CODE = re.compile(r"```\w*\s*\n*(.*?)\s*```", re.DOTALL)
_SHORT_ANSWER = re.compile(r"^(?:[\w-]+(?:,\s*[\w-]+)*|[\w-]+\.|\([\w-]+\)$)")
_MARK = "Answer:"
_MAX_CHARS = 20_000
# Metrics that get the row's context in place of the gold answer.
_FROM_CONTEXT = ("xml_norm_point_in_bbox",)


def grade(response: str, row: Mapping[str, Any]) -> Verdict:
    """Score a response as MEGA-Bench does.

    Args:
        response: complete text of the model.
        row: the row's columns ``answer``, ``metric_info`` and ``eval_context``, as mappings or their text.
    """
    gold, rules = literal(row["answer"]), literal(row["metric_info"])
    if not isinstance(gold, Mapping) or not isinstance(rules, Mapping):
        return Verdict(None, Status.UNPARSABLE_GOLD, None, "answer or metric_info is no mapping")
    whole = rules.get("global_aux_metrics", {})
    wanted = {**rules.get("field_score_function", {}), **whole}
    unknown = sorted({str(metric) for metric in wanted.values()} - set(METRICS))
    if unknown or not wanted:
        return Verdict(
            None, Status.NOT_JUDGED, None, f"no rule for the metric {', '.join(unknown) or 'none'}"
        )
    fields = parse(response[-_MAX_CHARS:], gold, str(rules.get("response_parse_function")))
    context = literal(row.get("eval_context") or {})
    answers = {**{name: fields.get(name, "") for name in wanted}, **dict.fromkeys(whole, fields)}
    golds = {**{name: gold.get(name, "") for name in wanted}, **dict.fromkeys(whole, gold)}
    scores = {
        name: _score(str(metric), answers[name], context if metric in _FROM_CONTEXT else golds[name])
        for name, metric in wanted.items()
    }
    return _aggregated(scores, rules.get("aggregation", {}), str(fields))


def _score(metric: str, answer: Any, gold: Any) -> float | None:
    """Return the score of a field, None if it does not count."""
    try:
        return METRICS[metric](answer, _unquoted(gold))
    except Exception:  # the benchmark, too, gives 0 to answers of an unexpected form
        return 0.0


def _aggregated(scores: Mapping[str, float | None], how: Mapping[str, Any], fields: str) -> Verdict:
    counted = {name: score for name, score in scores.items() if score is not None}
    if not counted:
        return Verdict(0.0, Status.WRONG, fields, "no field counts")
    if how.get("function") == "min":
        score = min(counted.values())
    else:
        weights = {name: float(how.get("field_weights", {}).get(name, 1)) for name in counted}
        total = sum(weights.values())
        score = sum(counted[name] * weights[name] for name in counted) / total if total else 0.0
    status = Status.CORRECT if score >= 1 else Status.PARTIAL if score > 0 else Status.WRONG
    parts = ", ".join(f"{name} {value:.2f}" for name, value in list(counted.items())[:6])
    return Verdict(float(score), status, short(fields, 200), parts)


def parse(response: str, gold: Mapping[str, Any], how: str) -> Mapping[str, Any]:
    """Return the fields of a response; without a JSON object, each field is the whole response."""
    names = [name for name in gold if not str(name).startswith("##")]
    if how.endswith("answer_string") and len(names) == 1:
        return {names[0]: _answer(response, "\n" not in str(gold[names[0]]))}
    found = _AT_LINE_START.search(response)
    fields = structure(found[1].strip() if found else response.strip()) if how == "json" else None
    if isinstance(fields, Mapping) and fields:
        return {str(name): _unquoted(value) for name, value in fields.items()}
    return dict.fromkeys(names, response.strip())


def _answer(response: str, one_line: bool) -> Any:
    """Return the text after the last "Answer:", out of its code block and quotes."""
    response = response.replace("answer:", _MARK)
    head, mark, tail = response.rpartition(_MARK)
    found = _ANSWER.search(head.replace(_MARK, "") + mark + tail)
    text = (found[1] or found[2] or "").strip() if found else response.strip()
    code = _CODE.search(text)
    if code:
        text = code[1].strip()
    elif one_line:
        first = text.split("\n\n")[0].strip()
        text = first if _SHORT_ANSWER.match(first) and "\n" not in first else text
    if text.startswith(("{", "[")):
        value = structure(text)
        return text if value is None else str(value)
    return _unquoted(text)


def _unquoted(value: Any) -> Any:
    inner = literal(value)
    return inner if isinstance(value, str) and isinstance(inner, str) else value
