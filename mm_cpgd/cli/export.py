"""``mm-cpgd export``: tables of results, submission files, a model card's ``model-index``. No torch."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from mm_cpgd.cli.common import Split, result_folders
from mm_cpgd.errors import UserError


class Format(str, Enum):
    """Formats of ``--format``."""

    csv = "csv"
    markdown = "markdown"
    latex = "latex"
    mathvista = "mathvista"
    mmmu = "mmmu"
    model_index = "model-index"


def export_command(
    results: Annotated[list[Path], typer.Argument(help="result folders, or folders that contain results")],
    file_format: Annotated[
        Format,
        typer.Option("--format", help="a table, a benchmark's submission file, a model card's metadata"),
    ] = Format.markdown,
    protocol: Annotated[
        str | None, typer.Option(help="protocol of the numbers; default: each result's first one")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="folder or model of the results that the others are compared with")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="names of the models, one per result; default: the stored ones")
    ] = None,
    name: Annotated[str | None, typer.Option(help="model-index: the model's name")] = None,
    data: Annotated[
        str | None, typer.Option(help="mathvista: the published questions; default: those of the result")
    ] = None,
    split: Split = None,
    sample: Annotated[int, typer.Option(min=0, help="mathvista, mmmu: which sample of each question")] = 0,
    output: Annotated[Path | None, typer.Option(help="file to write; default: print")] = None,
) -> None:
    """Write results as a table with intervals and significance, as a submission file, or for a model card.

    Example: `mm-cpgd export runs/eval/base runs/eval/k12 --format latex --baseline runs/eval/base`
    """
    results = result_folders(results)
    if file_format in (Format.mathvista, Format.mmmu):
        text, notes = _submission(results, file_format, data, split, sample)
    elif file_format is Format.model_index:
        from eval.export.model_index import model_index

        text, notes = model_index(results, protocol=protocol, name=name), []
    else:
        from eval.export.matrix import build_matrix
        from eval.export.tables import FORMATS

        matrix = build_matrix(results, protocol=protocol, baseline=baseline, labels=label or ())
        # Markdown and LaTeX contain the notes.
        notes = list(matrix.notes) if file_format is Format.csv else []
        text = FORMATS[file_format.value](matrix)
    _write(text, output)
    for note in notes:
        print(f"! {note}", file=sys.stderr)


def _submission(
    results: Sequence[Path], file_format: Format, data: str | None, split: str | None, sample: int
) -> tuple[str, Sequence[str]]:
    from eval.export.submissions import mathvista_submission, mmmu_submission
    from eval.results import read_result

    if len(results) != 1:
        raise UserError(f"a submission is of one result, not of {len(results)}; name one folder")
    result = read_result(results[0])
    if file_format is Format.mathvista:
        made = mathvista_submission(result, data=data, split=split, sample=sample)
    else:
        made = mmmu_submission(result, sample=sample)
    return json.dumps(made.content, ensure_ascii=False, indent=4) + "\n", made.notes


def _write(text: str, output: Path | None) -> None:
    if output is None:
        print(text, end="")
        return
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror}; name another --output") from error
    print(output)
