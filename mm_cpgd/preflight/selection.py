"""``mm-cpgd data select``: keep the training rows whose rewards differ between samples of the policy.

A row on which all samples score the same has no advantage to learn from. Temporal-RLT (arXiv 2506.01908)
keeps the rows of largest reward variance; here within each task, as rewards of 0 and 1 vary more than graded
ones.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import torch
from rich.console import Console
from rich.text import Text

from data import DataError, Example, read_rows
from mm_cpgd.config.schema import RunConfig
from mm_cpgd.errors import UserError
from mm_cpgd.policy import Policy, load_policy
from mm_cpgd.rollout import LocalEngine, Sampling
from mm_cpgd.tracking.files import write_lines
from mm_cpgd.tracking.progress import slow_bar
from mm_cpgd.training.rows import load_rows
from mm_cpgd.training.setup import build_rewards

# Columns of a row that say which rows are compared with each other.
TASKS = ("task", "kind")


@dataclass(frozen=True)
class RowScores:
    """Scores of a row's samples by the first reward rule; those that it could not score are left out."""

    id: str
    scores: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean score; NaN without any."""
        return fmean(self.scores) if self.scores else float("nan")

    @property
    def deviation(self) -> float:
        """Standard deviation of the scores themselves (divided by k)."""
        return pstdev(self.scores) if self.scores else 0.0


def select_rows(
    config: RunConfig, output: Path, console: Console, *, samples: int, least: float, share: float
) -> int:
    """Write the rows to keep, with ``select_mean``, ``select_std``, ``select_k``; an earlier start resumes.

    Args:
        config: of the run to come: model, rows, sampling, rewards.
        output: JSON Lines; the scores of all rows are kept beside it, in ``OUTPUT.scores``.
        console: for progress.
        samples: completions of each row.
        least: smallest standard deviation; rows without any difference are never kept.
        share: largest share of each task's rows, those of largest standard deviation first.

    Returns:
        The number of rows kept.

    Raises:
        UserError: rows that are not in a file, or whose relative paths would break in the output's folder.
        DataError: as a run would raise it.
    """
    if samples < 2:
        raise UserError(f"--samples {samples}: rewards of at least 2 samples can differ")
    if not 0 < share <= 1 or least < 0:
        raise UserError("--share is above 0 and at most 1, --least at least 0")
    values = _raw_rows(config, output)
    policy = load_policy(config.policy, shared_prefix=config.rollout.shared_prefix)
    policy.to("cuda" if torch.cuda.is_available() else "cpu")
    rows = load_rows(config, config.data.train, policy.encoder, None).examples
    scored = _scores(config, policy, rows, output.with_name(f"{output.name}.scores"), samples, console)
    kept = keep(rows, scored, least, share)
    lines = [
        json.dumps(
            {
                **values[row.source],
                "select_mean": scored[row.id].mean,
                "select_std": scored[row.id].deviation,
                "select_k": len(scored[row.id].scores),
            },
            ensure_ascii=False,
        )
        for row in kept
    ]
    write_lines(output, lines)
    _say(rows, scored, kept, output, console)
    return len(kept)


def keep(
    rows: Sequence[Example], scored: Mapping[str, RowScores], least: float, share: float
) -> list[Example]:
    """Return the rows to keep, in their order."""
    tasks: dict[str, list[Example]] = defaultdict(list)
    for row in rows:
        tasks[_task(row)].append(row)
    kept: set[str] = set()
    for own in tasks.values():
        varied = [row for row in own if scored[row.id].deviation > 0 and scored[row.id].deviation >= least]
        varied.sort(key=lambda row: -scored[row.id].deviation)  # stable: earlier rows first among equals
        kept.update(row.id for row in varied[: math.ceil(share * len(own))])
    return [row for row in rows if row.id in kept]


def _task(row: Example) -> str:
    return next((str(row.meta[name]) for name in TASKS if row.meta.get(name) is not None), "")


def _raw_rows(config: RunConfig, output: Path) -> dict[str, Mapping[str, Any]]:
    """Return the rows as they are in their file, by their place in it."""
    source = config.data.train
    if source.path.startswith(("generated:", "cold-start:")):
        raise UserError(f"{source.path}: drawn rows are not in a file; select from rows of your own")
    found = {}
    for row in read_rows(
        source.path, split=source.split, name=source.name, offset=source.offset, limit=source.limit
    ):
        if row.error:
            continue
        if row.folder is not None and row.folder.resolve() != output.parent.resolve():
            raise UserError(
                f"--output {output}: write it beside the rows, into {row.folder}, as their paths are "
                "relative to it"
            )
        try:
            json.dumps(row.values)
        except TypeError:
            raise UserError(
                f"{row.where} holds an encoded image or video, which JSON Lines cannot; give rows that name "
                "files"
            ) from None
        found[row.where] = row.values
    return found


def _scores(
    config: RunConfig, policy: Policy, rows: Sequence[Example], file: Path, samples: int, console: Console
) -> dict[str, RowScores]:
    """Return the scores of all rows; each batch is stored when it is scored."""
    key = _key(config, samples)
    known = {one.id: one for one in _stored(file, key)}
    missing = [row for row in rows if row.id not in known]
    size = max(1, config.rollout.batch_prompts)
    rewards = build_rewards(config)
    with (
        file.open("a", encoding="utf-8") as stored,
        slow_bar(console, "sampling") as report,
    ):
        engine = LocalEngine(policy, size)
        if stored.tell():
            stored.write("\n")  # the last line may have been cut off
        for start in range(0, len(missing), size):
            batch = missing[start : start + size]
            groups = _sample(config, policy, engine, batch, samples)
            texts = [one.text for group in groups for one in group]
            owners = [row for row, group in zip(batch, groups, strict=True) for _ in group]
            components = [next(iter(score.components.values())) for score in rewards.score(texts, owners)]
            for row in batch:
                own = [
                    verdict.score
                    for owner, verdict in zip(owners, components, strict=True)
                    if owner is row and verdict.score is not None
                ]
                known[row.id] = RowScores(row.id, tuple(own))
                stored.write(json.dumps({"key": key, "id": row.id, "scores": own}) + "\n")
            stored.flush()
            report(start + len(batch), len(missing))
    return known


def _sample(
    config: RunConfig, policy: Policy, engine: LocalEngine, rows: Sequence[Example], samples: int
) -> list[Any]:
    """Return the completions of each row; none of one that cannot be read any more."""
    prompts, places = [], []
    for place, row in enumerate(rows):
        try:
            prompts.append(policy.encoder.encode(row))
        except (DataError, ValueError):
            continue
        places.append(place)
    chosen = config.rollout
    sampling = Sampling(
        chosen.max_new_tokens,
        temperature=chosen.temperature,
        top_p=chosen.top_p,
        top_k=chosen.top_k,
        min_p=chosen.min_p,
    )
    seeds = [[_seed(config.seed, rows[place].id, number) for number in range(samples)] for place in places]
    groups: list[Any] = [[] for _ in rows]
    with torch.no_grad():
        for place, group in zip(places, engine.generate(prompts, sampling, seeds), strict=True):
            groups[place] = group
    return groups


def _seed(seed: int, row: str, number: int) -> int:
    text = f"{seed}/{row}/{number}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "big")


def _key(config: RunConfig, samples: int) -> str:
    """Return a digest of what the scores depend on."""
    rollout = config.rollout.model_dump(
        mode="json", include={"max_new_tokens", "temperature", "top_p", "top_k", "min_p"}
    )
    policy = config.policy.model_dump(mode="json")
    rewards = [reward.model_dump(mode="json") for reward in config.rewards]
    text = json.dumps([policy, rollout, rewards, config.seed, samples], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _stored(file: Path, key: str) -> Iterator[RowScores]:
    """Yield the scores of an earlier run with the same settings; a line that was cut off is left out."""
    if not file.is_file():
        return
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and row.get("key") == key:
            yield RowScores(row["id"], tuple(row["scores"]))


def _say(
    rows: Sequence[Example],
    scored: Mapping[str, RowScores],
    kept: Sequence[Example],
    output: Path,
    console: Console,
) -> None:
    same = sum(scored[row.id].deviation == 0 for row in rows)
    console.print(f"{len(rows):,} rows, {same:,} with the same reward in all samples, {len(kept):,} kept")
    for task in sorted({_task(row) for row in rows}):
        own = [scored[row.id] for row in rows if _task(row) == task]
        mean = fmean([one.mean for one in own if one.scores] or [0.0])
        chosen = sum(_task(row) == task for row in kept)
        name = task or "all"
        console.print(f"  {name}: {len(own):,} rows, mean reward {mean:.3f}, {chosen:,} kept", markup=False)
    console.print(Text(f"rows: {output}"), soft_wrap=True)
