r"""OlympiadBench: open-ended competition problems in mathematics and physics, in English and Chinese.

Subsets are named like ``OE_MM_maths_en_COMP``: open-ended (OE; theorem proofs, TP, cannot be scored here),
with images (MM) or text only (TO), subject, language, competition or college entrance exam. Without a split,
the five with images are read; ``--split OE`` is all ten, ``--split OE_TO`` the text-only ones, and a full
name one subset. Subsets that a local copy lacks are skipped. The official scoring is
``eval.official.olympiadbench``.

An id that an earlier subset already has is prefixed with its subset: ``OE_MM_maths_zh_CEE/17``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from data import DataError, Example
from data.readers import RawRow
from eval.benchmark import Benchmark, DataSource, Response, with_images
from eval.judges.whole import judge_whole
from eval.loading import check_published, complete, published_example, published_files, published_rows
from eval.official import olympiadbench as scoring
from rewards import Verdict, verify

SUBSETS = (
    "OE_MM_maths_en_COMP",
    "OE_MM_maths_zh_CEE",
    "OE_MM_maths_zh_COMP",
    "OE_MM_physics_en_COMP",
    "OE_MM_physics_zh_CEE",
    "OE_TO_maths_en_COMP",
    "OE_TO_maths_zh_CEE",
    "OE_TO_maths_zh_COMP",
    "OE_TO_physics_en_COMP",
    "OE_TO_physics_zh_CEE",
)
COLUMNS = ("id", "question", "final_answer", "answer_type")
_HUB = "Hothan/OlympiadBench"
_FILE = "{config}.json"
_FOLDERS = ("", "OlympiadBench", "OlympiadBench_Dataset")
# <image_1> is the hub's column image_1; <img_3362> the file img_3362.jpg of the copy with folders.
_IMAGE_COLUMN = re.compile(r"image_\d+")
_HUB_MARK = re.compile(r"<image_(\d+)>")
_FILE_MARK = re.compile(r"<(img_\d+)>")

ENGLISH = (
    "Solve this {subject} competition problem step by step, with formulas in LaTeX.{kind} End with one line: "
    "So the final answer is \\boxed{{{several}}}.{unit}\n\n{problem}"
)
CHINESE = (
    "请逐步解答这道{subject}竞赛题，公式用 LaTeX 书写。{kind}最后单独写一行："
    "所以最终答案是\\boxed{{{several}}}。{unit}\n\n{problem}"
)
# Names of the row's answer type in English and Chinese; other types are not mentioned in the prompt.
_KINDS = {
    "Numerical": ("a number", "数值"),
    "Expression": ("an expression", "表达式"),
    "Equation": ("an equation", "方程"),
    "Interval": ("an interval", "区间"),
}
_SUBJECTS = {"maths": ("mathematics", "数学"), "physics": ("physics", "物理")}


def load(source: DataSource) -> list[Example]:
    """Read one or several subsets, from the hub or a local copy. Raises ``DataError``."""
    seen: set[str] = set()
    examples: list[Example] = []
    for subset, row in _rows(source):
        if source.limit is not None and len(examples) >= source.limit:
            break
        example = _example(row, subset)
        examples.append(replace(example, id=f"{subset}/{example.id}") if example.id in seen else example)
        seen.add(examples[-1].id)
    return complete(examples, "OlympiadBench")


def _rows(source: DataSource) -> Iterator[tuple[str, RawRow]]:
    if source.path is not None and Path(source.path).expanduser().is_file():
        place = Path(source.path)
        for row in published_rows(replace(source, split=None), hub=_HUB, split="train", file=_FILE):
            yield _subset_of(row.values, place.stem), row
        return
    for subset, folder in _present(source):
        one = replace(source, path=folder, split=None)
        for row in published_rows(one, hub=_HUB, config=subset, split="train", file=_FILE):
            yield subset, row


def _present(source: DataSource) -> list[tuple[str, str | None]]:
    """Return the requested subsets, each with the folder that contains it."""
    prefix = source.split or "OE_MM"
    wanted = [subset for subset in SUBSETS if subset.startswith(prefix)]
    if not wanted:
        raise DataError(
            f"OlympiadBench has no subset {prefix}…; a split is a prefix of one or several of these: "
            + ", ".join(SUBSETS)
        )
    if source.path is None:
        return [(subset, None) for subset in wanted]
    found = [(subset, _folder_with(Path(source.path).expanduser(), subset)) for subset in wanted]
    found = [(subset, folder) for subset, folder in found if folder]
    if not found:
        raise DataError(
            f"{source.path} has none of {', '.join(wanted)}, as files or folders of these names; "
            "give the folder that contains them, or another split"
        )
    return found


def _folder_with(place: Path, subset: str) -> str | None:
    folders = (place / inner for inner in _FOLDERS)
    return next(
        (str(one) for one in folders if published_files(one, split="train", file=_FILE, config=subset)), None
    )


def _subset_of(values: Mapping[str, Any], stem: str) -> str:
    """Return the subset of a row by its columns, or by its file's name if those are missing."""
    named = ("question_type", "modality", "subject", "language", "difficulty")
    if stem in SUBSETS or not all(values.get(name) for name in named):
        return stem
    kind, modality, subject, language, difficulty = (str(values[name]) for name in named)
    return "_".join(
        (
            "OE" if kind.startswith("Open") else "TP",
            "MM" if modality.startswith("Multi") else "TO",
            "physics" if subject == "Physics" else "maths",
            "zh" if language == "Chinese" else "en",
            "COMP" if difficulty == "Competition" else "CEE",
        )
    )


def _example(row: RawRow, subset: str) -> Example:
    check_published(row, COLUMNS, "OlympiadBench")
    golds = row.values["final_answer"] or []
    if not golds:
        raise DataError(f"{row.where} has no final answer; theorem proofs (TP) cannot be scored, remove them")
    question = "\n".join(str(row.values[name]) for name in ("context", "question") if row.values.get(name))
    files = list(dict.fromkeys(_FILE_MARK.findall(question)))
    text = _FILE_MARK.sub(lambda mark: f"<image{files.index(mark[1]) + 1}>", question)
    added = {"subset": subset, "image_files": [f"{name}.jpg" for name in files]}
    return published_example(
        replace(row, values={**row.values, **added}),
        id=row.values["id"],
        question=_HUB_MARK.sub(r"<image\1>", text),
        answer=golds[0] if isinstance(golds, list) else golds,
        images=("image_files",) if files else tuple(filter(_IMAGE_COLUMN.fullmatch, row.values)),
    )


def prompt(example: Example) -> str:
    """Return the problem with instructions in its language, for the answer format that official expects."""
    meta, chinese = example.meta, _is_chinese(example)
    several = bool(meta.get("is_multiple_answer"))
    kind = next((names for name, names in _KINDS.items() if str(meta["answer_type"]) == name), None)
    subject = _SUBJECTS["physics" if "physics" in example.meta["subset"] else "maths"][chinese]
    text = (_chinese if chinese else _english)(subject, kind, several, str(meta.get("unit") or ""))
    return with_images(text.replace("{problem}", example.question.strip()), example)


def _english(subject: str, kind: tuple[str, str] | None, several: bool, unit: str) -> str:
    kind_text = f" {'Each answer' if several else 'The answer'} is {kind[0]}." if kind else ""
    return ENGLISH.format(
        subject=subject,
        kind=kind_text,
        several="all answers, separated by commas" if several else "answer",
        unit=f" Leave the unit, {unit}, out of the box." if unit else "",
        problem="{problem}",
    )


def _chinese(subject: str, kind: tuple[str, str] | None, several: bool, unit: str) -> str:
    kind_text = f"{'每个答案' if several else '答案'}是{kind[1]}。" if kind else ""
    return CHINESE.format(
        subject=subject,
        kind=kind_text,
        several="所有答案，以英文逗号分隔" if several else "答案",
        unit=f"方框里不写单位（{unit}）。" if unit else "",
        problem="{problem}",
    )


def _is_chinese(example: Example) -> bool:
    return "_zh_" in str(example.meta["subset"]) or example.meta.get("language") == "Chinese"


def official(example: Example, response: Response) -> Verdict:
    """Score with the official scoring, by the row's error and answer type."""
    return scoring.grade(
        response.text if response.extraction is None else response.extraction,
        example.answer,
        error=example.meta.get("error"),
        answer_type=str(example.meta.get("answer_type") or ""),
        chinese=_is_chinese(example),
    )


def verifier(example: Example, response: Response) -> Verdict:
    """Score with this project's verifier; several answers are accepted in any order."""
    return verify(response.text, example.answer, ordered=not example.meta.get("is_multiple_answer"))


def groups(example: Example) -> dict[str, list[str]]:
    """Return subset, subject and language."""
    subset = str(example.meta["subset"])
    return {
        "subset": [subset],
        "subject": ["physics" if "physics" in subset else "maths"],
        "language": ["zh" if _is_chinese(example) else "en"],
    }


def metrics(scored: Sequence[tuple[Example, Verdict]]) -> dict[str, float | int | None]:
    """Return the micro average of all rows, and the mean accuracy of the subsets with rows."""
    pairs = [(str(e.meta["subset"]), v.score) for e, v in scored]
    overall, subsets = scoring.accuracies((name, score) for name, score in pairs if score is not None)
    shares = [one.share for one in subsets.values() if one.share is not None]
    return {
        "micro_average": overall.share,
        "mean_of_subsets": sum(shares) / len(shares) if shares else None,
        "subsets": len(shares),
    }


def read(record: Mapping[str, Any]) -> Response:
    """Read a row with ``model_output: {name of the model: {raw_output: …}}``, as written by the benchmark."""
    outputs = list(record["model_output"].values())
    if len(outputs) != 1:
        raise DataError(f"{record['id']}: outputs of {len(outputs)} models; keep those of one model")
    return Response(str(record["id"]), str(outputs[0]["raw_output"] or ""))


benchmark = Benchmark(
    name="olympiadbench",
    source="He et al. 2024, arXiv 2402.14008; github.com/OpenBMB/OlympiadBench",
    load=load,
    prompt=prompt,
    official=official,
    groups=groups,
    verifier=verifier,
    judges={"mm-eureka": judge_whole},
    read=read,
    metrics=metrics,
    title="OlympiadBench",
    hub=_HUB,
)
