"""A process that does one run after another; policy, pictures and first evaluation are made once for all."""

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
from mm_cpgd.distributed import start_accelerator
from mm_cpgd.errors import USER_ERRORS, RunEnded
from mm_cpgd.interrupt import ShouldStop
from mm_cpgd.policy import EncodedPrompt, Policy, PromptEncoder, load_policy
from mm_cpgd.study.grid import Trial, config_of
from mm_cpgd.study.results import Result, code_fingerprint, key_of, write_result
from mm_cpgd.tracking import Progress, read_metrics
from mm_cpgd.training.run import EvaluatorFactory
from mm_cpgd.training.setup import build_trainer, load_rows, sampling_engine
from mm_cpgd.training.trainer import Evaluator

# (trial, study folder, overrides); the answer is None, or (whether a user can mend it, what went wrong).
Order = tuple[Trial, Path, Sequence[str]]
Answer = tuple[bool, str] | None


def serve(connection: Connection, make_evaluator: EvaluatorFactory) -> None:
    """Carry out orders from the other end until it closes; each is answered when its result is written."""
    from transformers.utils import logging

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the parent decides
    logging.disable_progress_bar()
    bench = Bench(make_evaluator)
    with suppress(EOFError, OSError):  # nobody is at the other end any more
        while True:
            trial, folder, changes = connection.recv()
            connection.send(_carry_out(bench, trial, folder, changes))


def _carry_out(bench: Bench, trial: Trial, folder: Path, changes: Sequence[str]) -> Answer:
    try:
        write_result(folder, bench.run(trial, folder / "work" / f"{trial.name}-{os.getpid()}", changes))
    except USER_ERRORS as error:
        return True, str(error)
    except Exception:  # a bug in one run is told, and must not end the others
        return False, traceback.format_exc()
    return None


class Bench:
    """Does runs in this process, each from the same weights.

    Args:
        make_evaluator: held-out evaluation.
    """

    def __init__(self, make_evaluator: EvaluatorFactory) -> None:
        self.make_evaluator = make_evaluator
        self._loaded: tuple[str, Policy, dict[str, Tensor]] | None = None
        self._rows: dict[str, list[Example]] = {}
        self._first: dict[str, dict[str, float]] = {}

    def run(self, trial: Trial, folder: Path, changes: Sequence[str] = ()) -> Result:
        """Train from the starting weights; the run folder is removed when its numbers are taken.

        Raises:
            UserError: the run cannot be set up.
            RunEnded: it was asked to stop.
        """
        config = config_of(trial, folder, changes)
        shutil.rmtree(folder, ignore_errors=True)  # what a killed process left
        folder.mkdir(parents=True)
        started, cpu = time.perf_counter(), time.process_time()
        diverged = self._train(config)
        rows = read_metrics(folder / "metrics.jsonl")
        shutil.rmtree(folder, ignore_errors=True)
        return Result(
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
        accelerator = start_accelerator(config)
        policy = self._policy(config).to(accelerator.device)
        engine = sampling_engine(config, accelerator, policy)
        evaluator = None
        if config.data.eval:
            held_out = self._read(config, config.data.eval, policy)
            evaluator = self.make_evaluator(config, accelerator, policy, engine, held_out)
            evaluator = self._remember_first(config, evaluator)
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
            _let_go(accelerator, policy)
        return None

    def _policy(self, config: RunConfig) -> Policy:
        """Return the policy as it was loaded, whatever a run before has made of it."""
        source = config.policy.model_dump_json()
        if self._loaded is None or self._loaded[0] != source:
            policy = load_policy(
                config.policy, config.training.logprob_chunk, shared_prefix=config.rollout.shared_prefix
            )
            policy.encoder = RememberingEncoder(policy.encoder)
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

    def _remember_first(self, config: RunConfig, evaluator: Evaluator) -> Evaluator:
        """Evaluate the starting weights once for all runs that ask the same pictures."""
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


class RememberingEncoder(PromptEncoder):
    """Keeps the prompts that it encoded last: all runs of a seed draw the same ones.

    Args:
        encoder: does the work.
        most: prompts kept; one of the study's pictures takes 0.3 MB.
    """

    def __init__(self, encoder: PromptEncoder, most: int = 500) -> None:
        vars(self).update(vars(encoder))
        self.most = most
        self._kept: OrderedDict[str, EncodedPrompt] = OrderedDict()

    def encode(self, example: Example) -> EncodedPrompt:
        """Return the prompt's tensors, see ``PromptEncoder.encode``."""
        prompt = self._kept.pop(example.id, None) or super().encode(example)
        self._kept[example.id] = prompt
        if len(self._kept) > self.most:
            self._kept.popitem(last=False)
        return prompt


def _let_go(accelerator: Accelerator, policy: Policy) -> None:
    """Drop what would outlive the run."""
    accelerator.free_memory()
    policy.zero_grad(set_to_none=True)
