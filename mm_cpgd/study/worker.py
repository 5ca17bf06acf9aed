"""Worker process of a study: one run after another, with policy, rows and first evaluation loaded once."""

from __future__ import annotations

import os
import shutil
import signal
import time
import traceback
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from accelerate import Accelerator
from rich.console import Console
from torch import Tensor

from data import Example
from mm_cpgd.config.schema import RunConfig, SourceConfig
from mm_cpgd.distributed import Strategy, start_accelerator
from mm_cpgd.errors import USER_ERRORS, RunEnded
from mm_cpgd.interrupt import ShouldStop
from mm_cpgd.policy import EncodedPrompt, Policy, PromptEncoder, load_policy
from mm_cpgd.study.grid import Trial, config_of
from mm_cpgd.study.results import StudyRun, code_fingerprint, key_of, write_run
from mm_cpgd.tracking import Progress, read_metrics
from mm_cpgd.training.placement import PlacedPolicy
from mm_cpgd.training.rollouts.build import load_environment
from mm_cpgd.training.rows import load_rows
from mm_cpgd.training.setup import (
    build_engine,
    build_run_objective,
    build_trainer,
    held_out_evaluator,
)
from mm_cpgd.training.trainer import Evaluator

Job = tuple[Trial, Path, Sequence[str]]
"""A trial, the folder of the study, and config overrides."""
Failure = tuple[bool, str]
"""Whether the user can fix it, and the error message."""


def serve(connection: Connection) -> None:
    """Run the jobs from a connection until it closes; reply None, or the failure, after each."""
    from transformers.utils import logging

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent decides
    logging.disable_progress_bar()
    runner = TrialRunner()
    with suppress(EOFError, OSError):  # the parent closed the connection
        while True:
            connection.send(_run_job(runner, connection.recv()))


def _run_job(runner: TrialRunner, job: Job) -> Failure | None:
    trial, folder, changes = job
    try:
        write_run(folder, runner.run(trial, folder / "work" / f"{trial.name}-{os.getpid()}", changes))
    except USER_ERRORS as error:
        return True, str(error)
    except Exception:  # a bug in one run is reported and must not end the others
        return False, traceback.format_exc()
    return None


class TrialRunner:
    """Runs trials in this process, each from the same weights."""

    def __init__(self) -> None:
        self._loaded: tuple[str, Policy, dict[str, Tensor]] | None = None
        self._rows: dict[str, list[Example]] = {}
        self._first: dict[str, dict[str, float]] = {}

    def run(self, trial: Trial, folder: Path, changes: Sequence[str] = ()) -> StudyRun:
        """Train from the starting weights; the run folder is removed once its metrics are read.

        Raises:
            UserError: the run cannot be set up.
            RunEnded: it was interrupted.
        """
        config = config_of(trial, folder, changes)
        shutil.rmtree(folder, ignore_errors=True)  # left by a killed process
        folder.mkdir(parents=True)
        started, cpu = time.perf_counter(), time.process_time()
        diverged = self._train(config)
        rows = read_metrics(folder / "metrics.jsonl")
        shutil.rmtree(folder, ignore_errors=True)
        return StudyRun(
            trial=trial,
            key=key_of(config),
            code=code_fingerprint(),
            diverged=diverged,
            iterations=config.training.iterations,
            seconds=round(time.perf_counter() - started, 2),
            cpu_seconds=round(time.process_time() - cpu, 2),
            rows=rows,
        )

    def _train(self, config: RunConfig) -> str | None:
        """Return None, or why the run diverged."""
        accelerator = start_accelerator(config, Strategy())
        policy = self._policy(config).to(accelerator.device)
        policy.encoder.environment = load_environment(config)
        if build_run_objective(config).needs_reference:
            policy.keep_reference()
        engine = build_engine(config, accelerator, PlacedPolicy(policy))
        evaluator = None
        if config.data.eval:
            held_out = self._read(config, config.data.eval, policy)
            evaluator = held_out_evaluator(config, accelerator, policy, engine, held_out)
            evaluator = self._cache_first(config, evaluator)
        rows = self._read(config, config.data.train, policy)
        trainer = build_trainer(config, accelerator, policy, engine, rows, evaluator)
        try:
            with Progress(trainer.iterations, 0, Console(quiet=True), enabled=False) as progress:
                trainer.run(progress)
        except RunEnded as ended:
            if ended.exit_code != 1:
                raise
            return str(ended)
        finally:
            trainer.source.close()
            _release(accelerator, policy)
        return None

    def _policy(self, config: RunConfig) -> Policy:
        """Return the policy with its starting weights, whatever an earlier run changed."""
        source = config.policy.model_dump_json()
        if self._loaded is None or self._loaded[0] != source:
            policy = load_policy(
                config.policy, config.training.logprob_chunk, shared_prefix=config.rollout.shared_prefix
            )
            policy.encoder = CachingEncoder(policy.encoder)
            weights = {name: value.clone() for name, value in policy.state_dict().items()}
            self._loaded = source, policy, weights
        _, policy, weights = self._loaded
        policy.load_state_dict(weights)
        return policy.eval()

    def _read(self, config: RunConfig, source: SourceConfig, policy: Policy) -> list[Example]:
        name = source.model_dump_json()
        if name not in self._rows:
            self._rows[name] = list(load_rows(config, source, policy.encoder, None).examples)
        return self._rows[name]

    def _cache_first(self, config: RunConfig, evaluator: Evaluator) -> Evaluator:
        """Return the evaluator; its result on the starting weights is shared by runs with the same rows."""
        assert config.data.eval
        name = config.policy.model_dump_json() + config.data.eval.model_dump_json()
        calls = 0

        def evaluate(should_stop: ShouldStop) -> dict[str, float]:
            nonlocal calls
            calls += 1
            if calls > 1 or not config.evaluation.before:
                return evaluator(should_stop)
            if name not in self._first:
                self._first[name] = evaluator(should_stop)
            return dict(self._first[name])

        return evaluate


class CachingEncoder(PromptEncoder):
    """Prompt encoder with a cache of the last prompts: all runs of a seed draw the same ones.

    Args:
        encoder: the encoder whose settings are used.
        size: prompts that are kept; one of the study's images takes 0.3 MB.
    """

    def __init__(self, encoder: PromptEncoder, size: int = 500) -> None:
        vars(self).update(vars(encoder))
        self.size = size
        self._kept: OrderedDict[str, EncodedPrompt] = OrderedDict()

    def encode(self, example: Example, beginning: str = "") -> EncodedPrompt:
        """Return the prompt's tensors, see ``PromptEncoder.encode``."""
        if beginning:
            return super().encode(example, beginning)
        prompt = self._kept.pop(example.id, None) or super().encode(example)
        self._kept[example.id] = prompt
        if len(self._kept) > self.size:
            self._kept.popitem(last=False)
        return prompt


def _release(accelerator: Accelerator, policy: Policy) -> None:
    """Release memory that would outlive the run."""
    accelerator.free_memory()
    policy.zero_grad(set_to_none=True)
