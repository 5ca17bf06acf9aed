r"""Agreement of the rules of MMMU, MMMU-Pro and EMMA with the outputs in checkouts of their repositories.

    python -m benchmarks.rewards.official_agreement --mmmu MMMU_CHECKOUT --emma EMMA_CHECKOUT [--rows]

MMMU's outputs have no verdicts: the repository's own code is run on them, without its draw of a random
option. MMMU-Pro's and EMMA's have one for each response. With ``--rows`` every disagreement is listed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from eval.declared.rows import as_list
from eval.official import emma, mmmu

# What a response is, what the rule here says, what the benchmark says.
Pair = tuple[str, Any, Any]


def mmmu_options(checkout: Path) -> Iterator[Pair]:
    """Compare the option that MMMU's code and the rule pick."""
    theirs = _code(checkout / "mmmu" / "utils" / "eval_utils.py")
    for row in _mmmu_rows(checkout, "multiple-choice"):
        text, options = row["response"], row["index2ans"]
        picked = theirs.parse_multi_choice_response(text, row["all_choices"], options)
        yield text, mmmu.pick_option(text, list(options.values())), picked


def mmmu_open(checkout: Path) -> Iterator[Pair]:
    """Compare the verdict of MMMU's code and of the rule on open answers."""
    theirs = _code(checkout / "mmmu" / "utils" / "eval_utils.py")
    for row in _mmmu_rows(checkout, "short-answer"):
        golds = row["answer"] if isinstance(row["answer"], list) else [row["answer"]]
        right = theirs.eval_open(row["answer"], theirs.parse_open_response(row["response"]))
        yield row["response"], bool(mmmu.grade(row["response"], golds).score), right


def mmmu_pro(checkout: Path) -> Iterator[Pair]:
    """Compare the published verdicts of MMMU-Pro; those on responses without an option were drawn."""
    for file in sorted((checkout / "mmmu-pro" / "output").glob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            text = row["response"] if isinstance(row["response"], str) else ""
            options = [str(option) for option in as_list(row["options"], file.name)]
            yield text, bool(mmmu.grade_pro(text, row["answer"], options).score), row["if_right"]


def emma_mini(checkout: Path) -> Iterator[Pair]:
    """Compare the published verdicts of EMMA's fast evaluation."""
    for file in sorted((checkout / "results" / "EMMA-mini").rglob("*.json")):
        rows = {} if file.stem.endswith("_result") else json.loads(file.read_text(encoding="utf-8"))
        for row in rows.values():
            text = row.get("response")
            if not isinstance(text, str) or "extraction" not in row or row.get("gpt_eval"):
                continue  # no response, or judged by an LLM
            options = [str(option) for option in row["options"] or ()]
            yield text, bool(emma.grade(text, str(row["answer"]), options).score), row["true_false"]


def _mmmu_rows(checkout: Path, kind: str) -> Iterator[dict[str, Any]]:
    for file in sorted((checkout / "mmmu" / "example_outputs").rglob("output.json")):
        rows = json.loads(file.read_text(encoding="utf-8"))
        yield from (
            row for row in rows if (row["question_type"] == "multiple-choice") == (kind == "multiple-choice")
        )


def _code(file: Path) -> ModuleType:
    """Import a file of the checkout, with None for an option that it would draw at random."""
    spec = importlib.util.spec_from_file_location("their_eval_utils", file)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{file} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.random = SimpleNamespace(choice=lambda options: None)  # type: ignore[attr-defined]
    return module


def report(title: str, pairs: Iterator[Pair], rows: bool) -> None:
    """Print how many pairs agree, and those that do not."""
    every = list(pairs)
    differ = [(text, ours, theirs) for text, ours, theirs in every if ours != theirs]
    print(f"{title}: {len(every) - len(differ):,} of {len(every):,}")
    for text, ours, theirs in differ if rows else ():
        print(f"  ours {ours}, theirs {theirs}: …{text[-160:]!r}")


def main() -> None:
    """Compare what is given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mmmu", type=Path, help="checkout of github.com/MMMU-Benchmark/MMMU")
    parser.add_argument("--emma", type=Path, help="checkout of github.com/EMMA-Bench/EMMA")
    parser.add_argument("--rows", action="store_true", help="list the disagreements")
    given = parser.parse_args()
    jobs: list[tuple[str, Path | None, Callable[[Path], Iterator[Pair]]]] = [
        ("MMMU, options picked", given.mmmu, mmmu_options),
        ("MMMU, open answers", given.mmmu, mmmu_open),
        ("MMMU-Pro, published verdicts", given.mmmu, mmmu_pro),
        ("EMMA-mini, published verdicts", given.emma, emma_mini),
    ]
    for title, checkout, compare in jobs:
        if checkout is not None:
            report(title, compare(checkout), given.rows)


if __name__ == "__main__":
    main()
