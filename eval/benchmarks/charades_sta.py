"""Charades-STA: when, in a video of about half a minute, does what a sentence says happen?

Published is a text file with one query a line: the video's name, the start and end of the gold span in
seconds, ``##`` and the sentence. Reported are the mean IoU of the spans, and the share of queries whose IoU
reaches 0.3, 0.5 and 0.7 ("R1@0.5"). The videos are those of Charades (480p), ``NAME.mp4``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from data import DataError, Example, VideoRef, video_ref
from eval.benchmark import Benchmark, DataSource, Response
from eval.loading import complete
from rewards import Verdict, get_rule

FILE = "charades_sta_test.txt"
# Places of the videos beside the file, as the archives of Charades unpack.
FOLDERS = ("Charades_v1_480", "videos", "Charades_v1", ".")
THRESHOLDS = (0.3, 0.5, 0.7)
PROMPT = (
    "In the video, when does this happen: {query}\n\n"
    "Give the start and the end in seconds, as [start, end], between <answer> and </answer>."
)
_LINE = re.compile(r"(?P<video>[\w-]+) (?P<start>[\d.]+) (?P<end>[\d.]+)##(?P<query>.+)")


def load(source: DataSource) -> list[Example]:
    """Read ``charades_sta_test.txt``. Raises ``DataError``."""
    if source.path is None:
        raise DataError(
            f"Charades-STA is not on the hub; give the folder that holds {FILE} (github.com/jiyanggao/TALL) "
            "and the videos of Charades as data"
        )
    place = Path(source.path).expanduser().resolve()
    split = f"charades_sta_{source.split}.txt" if source.split else FILE
    file = place if place.is_file() else place / split
    if not file.is_file():
        raise DataError(f"{source.path} has no {split}; give the folder or the file of Charades-STA")
    return complete(islice(_examples(file), source.limit), "Charades-STA")


def _examples(file: Path) -> Iterator[Example]:
    lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    for number, line in enumerate(lines, 1):
        found = _LINE.fullmatch(line)
        if found is None:
            raise DataError(f"{file.name}:{number} is {line[:60]!r}, not 'VIDEO start end##query'")
        yield Example(
            id=f"{found['video']}-{number}",
            question=found["query"],
            answer=f"[{found['start']}, {found['end']}]",
            videos=(_video(file.parent, f"{found['video']}.mp4"),),
            source=f"{file.name}:{number}",
            meta={"video": found["video"]},
        )


def _video(folder: Path, name: str) -> VideoRef:
    places = (folder / inner / name for inner in FOLDERS)
    return video_ref(next((place for place in places if place.is_file()), folder / FOLDERS[0] / name))


def prompt(example: Example) -> str:
    """Return the query with the request for seconds in an answer tag."""
    return PROMPT.format(query=example.question.strip().rstrip("."))


def overlap(example: Example, response: Response) -> Verdict:
    """Score with the IoU of the response's span with the gold span; 0 without a readable one."""
    verdict: Verdict = get_rule("temporal_iou", {"several": False})(response.text, example)
    return verdict


def metrics(rows: Sequence[tuple[Example, Verdict]]) -> Mapping[str, Any]:
    """Return the mean IoU and the share of queries that reach each threshold, in percent."""
    scores = [verdict.score for _, verdict in rows if verdict.score is not None]
    if not scores:
        return {}
    found = {f"r1_at_{limit}": sum(score >= limit for score in scores) / len(scores) for limit in THRESHOLDS}
    return {"mean_iou": sum(scores) / len(scores), **found}


benchmark = Benchmark(
    name="charades_sta",
    source="Gao et al. 2017, arXiv 1705.02101; github.com/jiyanggao/TALL",
    load=load,
    prompt=prompt,
    official=overlap,
    verifier=overlap,
    metrics=metrics,
    max_new_tokens=1024,
    title="Charades-STA",
)
