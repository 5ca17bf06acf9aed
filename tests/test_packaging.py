"""The built wheel in a fresh environment, started from a folder whose files bear our packages' names."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.paths import ROOT

RULE = """\
def always(completion, example):
    '''Every completion is right.'''
    return 1.0
"""
NAMES = ("mm_cpgd", "rewards", "data", "eval")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the sources, so that no build folder is left in the checkout."""
    folder = tmp_path_factory.mktemp("build")
    source = folder / "source"
    source.mkdir()
    for name in (*NAMES, "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(source)], check=True, timeout=240)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the interpreter of an environment with the wheel; the dependencies are borrowed from ours."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    executable = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(executable), "install", "--quiet", "--no-deps"]
    subprocess.run([*command, str(wheel)], check=True, timeout=120)
    (site,) = folder.glob("lib/python*/site-packages")
    # A path in a .pth file does not read the .pth files there, so the editable install stays out of sight.
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return executable


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's working folder in which every name of ours is taken."""
    for name in ("data", "eval", "configs", "rewards"):
        (tmp_path / name).mkdir()
    (tmp_path / "data" / "__init__.py").write_text("raise RuntimeError('the wrong data')\n")
    (tmp_path / "data" / "train.jsonl").write_text('{"question": "1+1?", "answer": "2"}\n')
    for name in ("data.py", "eval.py"):
        (tmp_path / name).write_text("raise RuntimeError('the wrong module')\n")
    (tmp_path / "rewards.py").write_text(RULE)
    return tmp_path


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


ENVIRONMENT = {"PATH": "/usr/bin:/bin", "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
DRY_RUN = [
    "train", "quickstart", "rewards=[{rule: 'rewards.py:always'}]",
    "data.train={path: data/train.jsonl}", "data.eval=null", "--dry-run", "--no-processor",
]  # fmt: skip


def launchers(python: Path) -> dict[str, list[str]]:
    return {
        "module": [str(python), "-m", "mm_cpgd"],
        "torchrun": [str(python), "-m", "torch.distributed.run", "--nproc_per_node=1", "-m", "mm_cpgd"],
        "torchrun, old name": [
            str(python), "-m", "torch.distributed.run", "--nproc_per_node=1", "-m", "mm_cpgd.cli",
        ],
        "accelerate": [
            str(python), "-m", "accelerate.commands.launch", "--cpu", "--num_processes=1", "--num_machines=1",
            "--mixed_precision=no", "--dynamo_backend=no", "-m", "mm_cpgd",
        ],
        "script": [str(python.with_name("mm-cpgd"))],
    }  # fmt: skip


def test_the_installed_top_level_is_the_four_packages_alone(wheel: Path) -> None:
    names = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == set(NAMES)


def test_the_wheel_holds_what_is_not_python(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(
        ["git", "ls-files", *NAMES, "configs"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    present = [name for name in tracked if (ROOT / name).is_file()]
    assert names >= {f"mm_cpgd/{name}" if name.startswith("configs/") else name for name in present}


@pytest.mark.parametrize("name", ["module", "torchrun", "torchrun, old name", "accelerate", "script"])
def test_a_users_files_of_the_same_names_hide_nothing(python: Path, folder: Path, name: str) -> None:
    done = run([*launchers(python)[name], *DRY_RUN], folder)
    assert "rewards.py:always" in done.stdout + done.stderr


@pytest.mark.parametrize("name", ["module", "torchrun", "script"])
def test_a_package_overwritten_by_another_distribution_is_one_message(
    python: Path, tmp_path: Path, name: str
) -> None:
    (site,) = python.parent.parent.glob("lib/python*/site-packages")
    file = site / "data" / "__init__.py"
    ours = file.read_text()
    try:
        file.write_text('"""Data tools of somebody else."""\n')
        command = [*launchers(python)[name], "rewards", "list"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=ENVIRONMENT)
    finally:
        file.write_text(ours)
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if line.startswith("mm-cpgd: ")]
    assert len(said) == 1
    assert f"{file} belongs to another distribution" in said[0]
    assert "pip install --force-reinstall --no-deps mm-cpgd" in said[0]
    assert "Traceback" not in done.stderr or name == "torchrun"


def test_a_run_starts_there_and_scores_with_the_users_rule(python: Path, folder: Path) -> None:
    options = [
        "train", "quickstart", "rewards=[{rule: 'rewards.py:always', name: mine}]", "training.iterations=1",
        "rollout.prompts=2", "rollout.completions=2", "rollout.max_new_tokens=4", "data.train.limit=4",
        "data.eval=null", "training.mini_batch_prompts=2", "output=out",
    ]  # fmt: skip
    run([str(python), "-m", "mm_cpgd", *options], folder)
    assert '"reward/mine": 1.0' in (folder / "out" / "metrics.jsonl").read_text()


def test_the_public_api_imports_from_there(python: Path, folder: Path) -> None:
    code = (
        "import mm_cpgd, data, rewards, eval; from pathlib import Path\n"
        "root = Path(mm_cpgd.__file__).parent.parent\n"
        "assert all(Path(m.__file__).parent.parent == root for m in (data, rewards, eval))\n"
        "assert mm_cpgd.load_config('quickstart').name == 'quickstart'"
    )
    run([str(python), "-c", code], folder)
