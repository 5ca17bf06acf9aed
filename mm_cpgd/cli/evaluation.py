"""Run of ``mm-cpgd eval`` once its options are read: processes, cache, judge, progress."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from data import DataError, Example
from mm_cpgd.cli.common import INCOMPLETE
from mm_cpgd.cli.judge import JudgeOptions, judge_session, print_estimate
from mm_cpgd.errors import RunEnded, UserError

if TYPE_CHECKING:
    from eval.benchmark import ByJudge, Response
    from eval.generate.cache import GenerationCache
    from eval.generate.generate import Generator
    from eval.generate.processes import Processes
    from eval.preparation import Evaluation
    from eval.run import BeforeJudging
    from eval.scoring.judge import Judge
    from mm_cpgd.cli.results import Done

# Seconds between progress lines without a terminal.
PLAIN_SECONDS = 30.0
# Seconds that processes of a launch have to come, and that one may wait for the slowest one's responses.
_MEET, _WAIT = 600.0, 7 * 86_400.0
_ADVICE = "run the same command again: finished responses are cached"


@contextmanager
def shared_processes(
    prepare: Callable[[], Sequence[Evaluation]],
) -> Iterator[tuple[Sequence[Evaluation], Processes]]:
    """Prepare the evaluations, and meet the other processes if a launcher has started several.

    Inside the block, the end of one process ends the others.

    Raises:
        UserError, DataError: what ``prepare`` raises, on all processes; they are about to do something else.
    """
    from eval.generate.processes import ALONE

    if int(os.environ.get("WORLD_SIZE") or 1) < 2:
        yield prepare(), ALONE
        return
    from mm_cpgd.training.processes import Limit, agree, is_launched

    evaluations: list[Evaluation] = []
    agree(
        lambda: _facts(evaluations), lambda: evaluations.extend(prepare()), Limit(_MEET, f"{_MEET:g} s")
    )  # fmt: skip
    if not is_launched(os.environ):
        yield evaluations, ALONE
        return
    with _group(evaluations[0].settings.tensor_parallel) as processes:
        yield evaluations, processes


def _facts(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """Return what has to be the same on all processes."""
    from eval.results import data_fingerprint

    facts: dict[str, Any] = {}
    for one in evaluations:
        name = one.benchmark.name
        facts |= {f"{name}.{key}": value for key, value in one.settings.stored().items()}
        facts[f"{name}.rows"] = data_fingerprint(one.examples)
    return facts


@contextmanager
def _group(sharing: int) -> Iterator[Processes]:
    import torch.distributed as distributed
    from accelerate import Accelerator
    from accelerate.utils import InitProcessGroupKwargs

    from eval.generate.processes import Processes, check_sharing
    from mm_cpgd.training.processes import ProcessWatch

    longest = timedelta(seconds=_WAIT)
    accelerator = Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=longest)])
    check_sharing(sharing, accelerator.num_processes)
    # Responses are objects in CPU memory.
    group = distributed.new_group(backend="gloo", timeout=longest)
    with ProcessWatch(accelerator, _WAIT, warn=say, advice=_ADVICE):
        yield Processes(accelerator.process_index, accelerator.num_processes, sharing, group)
    with suppress(RuntimeError, ValueError):
        distributed.destroy_process_group()


@contextmanager
def opened(
    make: Callable[[], Generator], processes: Processes, cache: Path | None, use_cache: bool
) -> Iterator[tuple[Generator, GenerationCache | None]]:
    """Open generator and cache on all processes, and close them.

    Raises:
        UserError, DataError: on all processes, if one cannot open them, or finds another model.
    """
    generator = processes.together(make)
    identities = [dict(one) for one in processes.of_all(generator.identity)]
    if any(one != identities[0] for one in identities):
        names = {name for one in identities for name in one if one[name] != identities[0].get(name)}
        raise UserError(
            f"the processes find different models: their {', '.join(sorted(names))} differ; put the model, "
            "or the hub's cache, where all of them read the same"
        )
    try:
        with _open_cache(cache, generator) if use_cache else nullcontext() as store:
            yield generator, store
    finally:
        if close := getattr(generator, "close", None):
            close()


def _open_cache(folder: Path | None, generator: Generator) -> GenerationCache:
    from eval.generate.cache import open_cache

    store = open_cache(folder, generator.identity)
    if store.damaged:
        say(f"{store.path}: {store.damaged:,} damaged lines are skipped, their responses generated again")
    return store


@contextmanager
def judging(
    evaluations: Sequence[Evaluation], options: JudgeOptions, processes: Processes
) -> Iterator[Judge | None]:
    """Open the judge on the process that scores, if a protocol needs one."""
    from eval.scoring.protocols import is_judge

    if processes.is_main and any(is_judge(name) for one in evaluations for name in one.settings.protocols):
        with judge_session(options, Console()) as judge:
            yield judge
    else:
        yield None


def run_evaluations(
    evaluations: Sequence[Evaluation],
    generator: Generator,
    output: Path,
    cache: GenerationCache | None,
    judge: Judge | None,
    options: JudgeOptions,
    processes: Processes,
) -> tuple[list[Done], list[str]]:
    """Evaluate every benchmark and its controls.

    Returns:
        Title, folder and summary of each, on the main process; titles of controls to which no response could
        be generated.
    """
    from eval.generate.generate import NoneAnswered
    from eval.run import run_evaluation

    results: list[Done] = []
    failed: list[str] = []
    for evaluation, control in [(one, control) for one in evaluations for control in one.variants]:
        original, folder = evaluation.folder(output), evaluation.folder(output, control)
        title = folder.name
        try:
            summary = run_evaluation(
                evaluation, generator, folder, control=control, original=original, cache=cache,
                judge=judge, before_judging=_telling(judge, options), processes=processes,
                progress=_progress, command=shlex.join(sys.argv),
            )  # fmt: skip
        except DataError as error:
            if control is None:
                raise
            # A control that cannot be made does not invalidate the results without it.
            say(f"{title} is skipped: {error}")
            failed += [title] if isinstance(error, NoneAnswered) else []
            continue
        except KeyboardInterrupt:
            advice = "with --no-cache nothing is kept" if cache is None else "the same command resumes here"
            raise RunEnded(f"stopped at {title}; {advice}", 130) from None
        if summary is not None:
            results.append((title, folder, summary))
    return results, failed


def _telling(judge: Judge | None, options: JudgeOptions) -> BeforeJudging:
    """Return what prints the estimate of a judge's requests."""

    def tell(judges: Collection[ByJudge], pairs: Iterable[tuple[Example, Response]]) -> None:
        if judge is not None:
            print_estimate(judges, pairs, judge, options, Console(stderr=True))

    return tell


def end_incomplete(results: Sequence[Done], failed: Sequence[str], no_cache: bool) -> None:
    """Raise ``RunEnded`` if questions have no response or no judgement, or controls have no result."""
    open_ = {title: summary["unanswered"]["count"] for title, _, summary in results}
    lacking = [f"{title} lacks {count:,} responses" for title, count in open_.items() if count]
    lacking += [f"{title} has no result" for title in failed]
    lacking += [
        f"{title} lacks {count:,} judgements"
        for title, _, summary in results
        if (count := _unjudged(summary))
    ]
    if lacking:
        then = "with --no-cache all questions are asked again" if no_cache else "it asks only these again"
        raise RunEnded(f"{', '.join(lacking)}; run the same command again: {then}", INCOMPLETE)


def _unjudged(summary: Mapping[str, Any]) -> int:
    """Return the number of responses about which a judge gave no reply; one that was unclear is one."""
    from eval.scoring.judgement import NO_VERDICT
    from rewards import Status

    failed, unclear = f"{Status.NOT_JUDGED.value}: ", f"{Status.NOT_JUDGED.value}: {NO_VERDICT}"
    kinds = [kind for one in summary["protocols"].values() for kind in one["unscored"]["reasons"].items()]
    return sum(count for kind, count in kinds if kind.startswith(failed) and not kind.startswith(unclear))


@contextmanager
def _progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show progress as a bar in a terminal, else as a line every ``PLAIN_SECONDS``; of the main process."""
    from mm_cpgd.tracking.progress import slow_bar

    last = time.monotonic()
    count = int(os.environ.get("WORLD_SIZE") or 1)
    if count > 1 and title.startswith("generating"):
        title = f"{title}, share 1 of {count}"

    def line(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= PLAIN_SECONDS:
            last = time.monotonic()
            say(f"{title}: {done:,} of {total:,}")

    if sys.stderr.isatty() and _is_main():
        with slow_bar(Console(stderr=True), title) as bar:
            yield bar
    else:
        yield line


def _is_main() -> bool:
    return int(os.environ.get("RANK") or 0) == 0


def say(message: str) -> None:
    """Print a line to standard error, on the first of several processes."""
    if _is_main():
        print(f"mm-cpgd: {message}", file=sys.stderr)
