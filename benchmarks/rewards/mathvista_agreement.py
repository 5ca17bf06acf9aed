r"""Agreement of the verifier on raw responses with MathVista's official verdicts on extractions, by cause.

    python -m benchmarks.rewards.mathvista_agreement --data ../shared/datasets/mathvista \
        --predictions ../shared/datasets/mathvista/predictions/bard.json [--rows]

The official verdict needs an LLM that extracted the answer; the verifier reads the response itself. With
``--rows`` every disagreement is listed.
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict

from eval.benchmark import DataSource, ScoredRow
from eval.benchmarks.mathvista import benchmark
from eval.predictions import read_predictions
from eval.scoring.score import score_responses
from rewards import Status

_LETTER = re.compile(r"\([A-Za-z]\)")
_END = 200


def cause(row: ScoredRow) -> str:
    """Return why the two protocols disagree on a row, as worded in the table."""
    choices, extraction = row.example.choices, (row.response.extraction or "").strip()
    if choices and all(_LETTER.fullmatch(choice) for choice in choices):
        return "the options are letters themselves, and official takes a letter in brackets for a position"
    named = extraction in choices or _LETTER.search(extraction) or re.fullmatch("[A-Z]", extraction)
    if choices and not named:
        return "the response names no option, and official takes the one that is nearest in spelling"
    status, read = row.verdicts["verifier"].status, (row.verdicts["verifier"].extracted or "").lower()
    taken = (row.verdict.extracted or "").lower()
    if choices and _names(read, taken, chr(97 + choices.index(row.verdict.extracted or ""))):
        return "the verifier has the words that name the option, but does not recognise it"
    if choices and taken not in row.response.text[-_END:].lower():
        return "the LLM gave an option that the end of the response does not name"
    if status is Status.NO_ANSWER:
        return "the LLM found the answer in text that does not end in one"
    if status is Status.UNPARSABLE_ANSWER:
        return "the verifier found the place, but reads no value in its words"
    return "the verifier took another part of the response for its answer"


def _names(text: str, option: str, letter: str) -> bool:
    return f"({letter})" in text or re.search(rf"\b{re.escape(option)}\b", text) is not None


def main() -> None:
    """Print the agreement, and the disagreements by cause."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--predictions", required=True)
    parser.add_argument("--rows", action="store_true", help="list every disagreement")
    options = parser.parse_args()
    examples = benchmark.load(DataSource(options.data))
    rows = score_responses(
        benchmark, examples, read_predictions(options.predictions, benchmark), ["official", "verifier"]
    )
    causes = defaultdict(list)
    for row in rows:
        if row.verdict.score != row.verdicts["verifier"].score:
            causes[cause(row)].append(row)
    count = sum(map(len, causes.values()))
    print(f"official {right(rows, 'official')}, verifier {right(rows, 'verifier')} right of {len(rows):,}")
    print(f"they agree on {len(rows) - count:,} ({1 - count / len(rows):.1%})")
    print("official right, verifier wrong | the other way | cause")
    for name, own in sorted(causes.items(), key=lambda item: -len(item[1])):
        lost = sum(row.verdict.score == 1 for row in own)
        print(f"{lost:4} | {len(own) - lost:4} | {name}")
        if options.rows:
            print(*map(described, own), sep="\n")


def right(rows: list[ScoredRow], protocol: str) -> int:
    """Return how many responses a protocol scores as right."""
    return sum(row.verdicts[protocol].score == 1 for row in rows)


def described(row: ScoredRow) -> str:
    """Return one line: id, gold answer, and what each protocol compared."""
    found = row.verdicts["verifier"].extracted
    extraction = row.response.extraction
    return f"      {row.example.id}: gold {row.example.answer!r}, LLM {extraction!r}, read {found!r}"


if __name__ == "__main__":
    main()
