"""MVBench: 20 tasks of 200 questions about short videos, each with two to five options.

Published are ``json/TASK.json``, lists of ``video``, ``question``, ``candidates``, ``answer`` (the text of
an option) and for some tasks ``start`` and ``end`` in seconds, and the videos in ``video/``, sorted by their
data sets; those of one task are folders of frames, three a second. Reported is the mean of the tasks'
accuracies.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from data import DataError, Example, VideoRef, video_ref
from data.readers import read_json
from data.videos.reference import Clip
from eval.benchmark import Benchmark, DataSource, Response, lettered
from eval.loading import check_published, complete
from rewards import Verdict, get_rule


class Task(NamedTuple):
    """Where the videos of a task are, and whether they are cut."""

    folder: str
    cut: bool = False
    fps: float | None = None


TASKS = {
    "action_sequence": Task("star/Charades_v1_480", cut=True),
    "action_prediction": Task("star/Charades_v1_480", cut=True),
    "action_antonym": Task("ssv2_video"),
    "fine_grained_action": Task("Moments_in_Time_Raw/videos"),
    "unexpected_action": Task("FunQA_test/test"),
    "object_existence": Task("clevrer/video_validation"),
    "object_interaction": Task("star/Charades_v1_480", cut=True),
    "object_shuffle": Task("perception/videos"),
    "moving_direction": Task("clevrer/video_validation"),
    "action_localization": Task("sta/sta_video", cut=True),
    "scene_transition": Task("scene_qa/video"),
    "action_count": Task("perception/videos"),
    "moving_count": Task("clevrer/video_validation"),
    "moving_attribute": Task("clevrer/video_validation"),
    "state_change": Task("perception/videos"),
    "fine_grained_pose": Task("nturgbd"),
    "character_order": Task("perception/videos"),
    "egocentric_navigation": Task("vlnqa"),
    "episodic_reasoning": Task("tvqa/frames_fps3_hq", cut=True, fps=3.0),
    "counterfactual_inference": Task("clevrer/video_validation"),
}
COLUMNS = ("video", "question", "candidates", "answer")
PROMPT = "{question}\n{options}\n\nAnswer with the letter of the best option, between <answer> and </answer>."
_REPOSITORY = "OpenGVLab/MVBench"


def load(source: DataSource) -> list[Example]:
    """Read ``json/*.json`` of all tasks, or of ``source.split`` alone. Raises ``DataError``."""
    if source.path is None:
        raise DataError(f"give a local copy of {_REPOSITORY}, with its videos unpacked into video/, as data")
    place = Path(source.path).expanduser().resolve()
    if source.split is not None and source.split not in TASKS:
        raise DataError(f"MVBench has no task {source.split!r}; it has {', '.join(TASKS)}")
    names = [source.split] if source.split else list(TASKS)
    files = [(name, file) for name in names if (file := place / "json" / f"{name}.json").is_file()]
    if not files:
        raise DataError(f"{source.path} has no json/{names[0]}.json; give a local copy of {_REPOSITORY}")
    found = (example for name, file in files for example in _examples(name, file))
    return complete(islice(found, source.limit), "MVBench")


def _examples(name: str, file: Path) -> Iterator[Example]:
    for row in read_json(file):
        check_published(row, COLUMNS, "MVBench")
        values = row.values
        choices = tuple(map(str, values["candidates"]))
        if values["answer"] not in choices:
            raise DataError(f"{row.where}: the answer {values['answer']!r} is none of the candidates")
        yield Example(
            id=f"{name}-{row.index}",
            question=str(values["question"]),
            answer=chr(ord("A") + choices.index(values["answer"])),
            choices=choices,
            videos=(_video(file.parent.parent, TASKS[name], values),),
            source=row.where,
            meta={"task": name, "video": values["video"]},
        )


def _video(folder: Path, task: Task, values: Mapping[str, Any]) -> VideoRef:
    place = folder / "video" / task.folder / str(values["video"])
    start, end = (values.get("start"), values.get("end")) if task.cut else (None, None)
    if not place.exists():  # unusable, which only matters when it is opened
        return video_ref(place)
    return video_ref(place, Clip(_number(start), _number(end), task.fps))


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def prompt(example: Example) -> str:
    """Return question and options with the request for a letter."""
    return PROMPT.format(question=example.question.strip(), options=lettered(example.choices))


def by_option(example: Example, response: Response) -> Verdict:
    """Score with the rule "choice": the option that the answer names, by letter or text."""
    verdict: Verdict = get_rule("choice")(response.text, example)
    return verdict


def groups(example: Example) -> Mapping[str, Sequence[str]]:
    """Return the task of a row."""
    return {"task": [str(example.meta["task"])]}


def metrics(rows: Sequence[tuple[Example, Verdict]]) -> Mapping[str, Any]:
    """Return the mean of the tasks' accuracies, which is the reported number, and the number of tasks."""
    tasks: dict[str, list[float]] = defaultdict(list)
    for example, verdict in rows:
        if verdict.score is not None:
            tasks[str(example.meta["task"])].append(verdict.score)
    if not tasks:
        return {}
    means = [sum(scores) / len(scores) for scores in tasks.values()]
    return {"mean_of_tasks": sum(means) / len(means), "mean_of_tasks_groups": len(means)}


benchmark = Benchmark(
    name="mvbench",
    source="Li et al. 2024, arXiv 2311.17005; huggingface.co/datasets/OpenGVLab/MVBench",
    load=load,
    prompt=prompt,
    official=by_option,
    verifier=by_option,
    groups=groups,
    metrics=metrics,
    max_new_tokens=1024,
    title="MVBench",
)
