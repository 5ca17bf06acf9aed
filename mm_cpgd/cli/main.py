"""``mm-cpgd``: assembly of the command line, the training commands, and the handling of user errors."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from mm_cpgd.cli.algorithms import algorithms_app
from mm_cpgd.cli.benchmarks import benchmarks_command
from mm_cpgd.cli.common import Columns, Limit, Name, Split
from mm_cpgd.cli.environments import environments_app
from mm_cpgd.cli.evaluate import evaluate
from mm_cpgd.cli.export import export_command
from mm_cpgd.cli.guard import guard_command
from mm_cpgd.cli.reference import reference_command
from mm_cpgd.cli.rewards import rewards_app
from mm_cpgd.cli.score import compare_command, score_command
from mm_cpgd.cli.study import study_app
from mm_cpgd.errors import USER_ERRORS, ProcessLost, RunEnded, UserError

if TYPE_CHECKING:
    from mm_cpgd.config.schema import RunConfig

app = typer.Typer(
    name="mm-cpgd",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    add_completion=False,
    help="Teach vision-language models to reason by reinforcement learning with verifiable rewards.",
)
data_app = typer.Typer(no_args_is_help=True, help="Inspect data without training.")
tiny_app = typer.Typer(no_args_is_help=True, help="The embedded tiny policy.")
app.add_typer(algorithms_app, name="algorithms")
app.add_typer(data_app, name="data")
app.add_typer(environments_app, name="environments")
app.add_typer(rewards_app, name="rewards")
app.add_typer(tiny_app, name="tiny")
app.add_typer(study_app, name="study")
app.command("score")(score_command)
app.command("compare")(compare_command)
app.command("eval")(evaluate)
app.command("benchmarks")(benchmarks_command)
app.command("reference")(reference_command)
app.command("export")(export_command)
app.command("guard")(guard_command)

ConfigPath = Annotated[Path, typer.Argument(help="a YAML file, or the name of a shipped config (quickstart)")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="section.key=value …, for instance training.iterations=5")
]
Resume = Annotated[bool, typer.Option("--resume", help="continue from the newest complete checkpoint")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="remove the run that the folder holds first")]


@app.command()
def train(
    config: ConfigPath,
    overrides: Overrides = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the plan and stop")] = False,
    processor: Annotated[
        bool, typer.Option(help="with --dry-run: load the processor to count prompt tokens")
    ] = True,
    processes: Annotated[
        int | None, typer.Option(help="with --dry-run: processes of the planned run, one on each GPU")
    ] = None,
    nodes: Annotated[int | None, typer.Option(help="with --dry-run: machines of the planned run")] = None,
    gpu_memory: Annotated[
        str | None, typer.Option(help="with --dry-run: memory of each GPU, such as 80GiB")
    ] = None,
    model_config: Annotated[
        Path | None,
        typer.Option(help="with --dry-run: the model's config.json, where policy.model cannot be reached"),
    ] = None,
) -> None:
    """Train a vision-language model by reinforcement learning.

    Example: `mm-cpgd train configs/k12.yaml training.iterations=3 training.learning_rate=1e-5`
    """
    only_planned = {
        "--processes": processes,
        "--nodes": nodes,
        "--gpu-memory": gpu_memory,
        "--model-config": model_config,
    }
    loaded = _load(config, overrides, launched=not dry_run)
    if dry_run:
        from mm_cpgd.preflight.plan import print_plan
        from mm_cpgd.preflight.setting import plan_machines

        machines = plan_machines(os.environ, processes, nodes, gpu_memory)
        print_plan(loaded, Console(), with_processor=processor, machines=machines, model_config=model_config)
        return
    if unused := [name for name, value in only_planned.items() if value is not None]:
        raise UserError(f"{', '.join(unused)}: only with --dry-run; a run takes what it is launched on")
    from mm_cpgd.training.run import train as run

    _finish(loaded, run(loaded, resume=resume, overwrite=overwrite))


@app.command()
def sft(
    config: ConfigPath, overrides: Overrides = None, resume: Resume = False, overwrite: Overwrite = False
) -> None:
    """Fine-tune on worked solutions (a cold start); the loss is over completion tokens only.

    Example: `mm-cpgd sft configs/tabmwp_sft.yaml sft.steps=20`
    """
    from mm_cpgd.training.run import fine_tune

    loaded = _load(config, overrides)
    _finish(loaded, fine_tune(loaded, resume=resume, overwrite=overwrite))


@app.command()
def quickstart(
    overrides: Overrides = None,
    seed: Annotated[int, typer.Option(help="seed of the prompts' order and of the sampled tokens")] = 1,
    resume: Resume = False,
) -> None:
    """Train the embedded tiny policy with CPGD on generated images, and show what it learned.

    Example: `mm-cpgd quickstart --seed 2`
    """
    from mm_cpgd.training.run import train as run

    loaded = _load("quickstart", [f"seed={seed}", *(overrides or [])])
    _finish(loaded, run(loaded, resume=resume, overwrite=not resume))


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="a run folder, or a result of mm-cpgd score or mm-cpgd eval")],
) -> None:
    """Rewrite a run's report.html, or the page of an evaluation result with every response.

    Example: `mm-cpgd report runs/quickstart`
    """
    if (run / "rows.jsonl").is_file():
        from eval.report import write_page

        print(write_page(run / "report.html", [(run.resolve().name, run)]))
        return
    from mm_cpgd.report.page import write_report

    print(write_report(run))


@data_app.command("check")
def data_check(
    path: Annotated[str, typer.Argument(help="a file, folder or hub name, or a config whose data to check")],
    columns: Columns = None,
    split: Split = None,
    name: Name = None,
    limit: Limit = None,
    output: Annotated[Path | None, typer.Option(help="file for the unusable rows with their reasons")] = None,
    model: Annotated[
        str | None, typer.Option(help="model whose processor checks the prompts; default: the config's")
    ] = None,
) -> None:
    """Read every row as training would; report unusable rows with the reason (exit status 1 if any).

    Example: `mm-cpgd data check rows.jsonl --column answer=gold --output quarantine.jsonl`
    """
    from mm_cpgd.preflight.data import check_data

    if not check_data(path, columns or [], split, name, limit, output, Console(), model):
        raise typer.Exit(1)


@data_app.command("select")
def data_select(
    config: ConfigPath,
    output: Annotated[Path, typer.Option(help="JSON Lines file for the rows to keep, beside the rows")],
    overrides: Overrides = None,
    samples: Annotated[int, typer.Option(help="completions of each row")] = 8,
    least: Annotated[float, typer.Option(help="smallest standard deviation of the rewards")] = 0.0,
    share: Annotated[float, typer.Option(help="largest share of each task's rows")] = 1.0,
) -> None:
    """Keep the training rows whose rewards differ between samples of the policy.

    Example: `mm-cpgd data select video_rlt --output video_rlt/selected.jsonl --share 0.1`
    """
    from mm_cpgd.preflight.selection import select_rows

    chosen = _load(config, overrides)
    select_rows(chosen, output, Console(), samples=samples, least=least, share=share)


@tiny_app.command("build")
def tiny_build(
    output: Annotated[Path, typer.Option(help="run folder of the cold start")] = Path("runs/tiny"),
    assets: Annotated[
        Path | None, typer.Option(help="folder to install the policy in; default: this package")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Rebuild the quickstart's starting policy: from random weights, by supervised fine-tuning.

    Example: `mm-cpgd tiny build`
    """
    from mm_cpgd.tiny.build import build_embedded_policy

    print(build_embedded_policy(output, assets, overrides or [], Console(stderr=True)))


def _load(config: Path | str, overrides: list[str] | None, *, launched: bool = True) -> RunConfig:
    """Return the config; if a process of a launch cannot read it, the others end with it."""
    from mm_cpgd.config.loading import load_config

    try:
        return load_config(config, overrides or [])
    except USER_ERRORS as error:
        if launched and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            from mm_cpgd.training.processes import fail_start

            fail_start(error)
        raise


def main() -> None:
    """Run the command; a user error is one message and exit status 2, a stopped run its own status."""
    _be_quiet()
    for stream in (sys.stdout, sys.stderr):
        # Data and models' texts may have what the terminal's encoding lacks, such as lone surrogates.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    _run(app)


def _run(command: Callable[[], Any]) -> None:
    try:
        command()
    except USER_ERRORS as error:
        _say(f"mm-cpgd: {error}")
        sys.exit(2)
    except ProcessLost as lost:
        _say(f"mm-cpgd: {lost}", everywhere=lost.everywhere)
        _end_at_once(lost.exit_code)
    except RunEnded as ended:
        _say(f"mm-cpgd: {ended}")
        sys.exit(ended.exit_code)
    except SystemExit as error:
        if _was_interrupted(error):
            _end_at_once(128 + signal.SIGINT)
        raise


def _end_at_once(status: int) -> None:
    """End without what Python waits for: threads in which a rule hangs, groups whose processes are gone."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # child processes end with their pipes


def _was_interrupted(error: BaseException | None) -> bool:
    """Return whether an exception was raised in the handling of Ctrl-C."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__context__
    return False


def _say(message: str, *, everywhere: bool = False) -> None:
    """Print to standard error, on the first of several processes only unless ``everywhere``."""
    if everywhere or int(os.environ.get("RANK", "0")) == 0:
        print(message, file=sys.stderr)


def _be_quiet() -> None:
    """Silence what other libraries print at every start, except their errors."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    logging.getLogger("torch.distributed").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")


def _finish(config: RunConfig, summary: dict[str, Any]) -> None:
    """Print held-out metrics before and after, and where the results are."""
    if int(os.environ.get("RANK", "0")):
        return
    table = Table(
        title=f"{config.name}: {summary['iterations']} iterations, {summary['seconds']['rl']:.0f} s"
    )
    for heading in ("held-out", "before", "after"):
        table.add_column(heading, justify="left" if heading == "held-out" else "right")
    rows = {"accuracy": summary["accuracy"], **{f"  {k}": v for k, v in summary["groups"].items()}}
    for name, pair in {**rows, **summary["other"]}.items():
        table.add_row(name, _shown(pair["before"]), _shown(pair["after"]))
    console = Console()
    if any(pair["after"] is not None for pair in rows.values()):
        console.print(table)
        console.print(f"n = {summary['accuracy']['n']} held-out examples, greedy")
    folder = config.folder
    console.print(f"policy: {folder / 'final'}\nreport: {folder / 'report.html'}", soft_wrap=True)


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
