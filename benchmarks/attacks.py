"""Attacks by files and texts from others: configs, models, data, checkpoints, completions, run folders.

    python -m benchmarks.attacks              # all, with one line each; exit status 1 if one gets through
    python -m benchmarks.attacks yaml pickle  # those whose name contains one of the words

Each attack works in ``inside`` of a folder of its own. It has got through if the file ``marker`` beside it
exists, which the payloads create, if anything beside it was written, changed or removed, or if it says so
itself. Its control loads the same payload without protection and must create the marker: an attack that could
not succeed would show nothing. ``tests/benchmarks/test_attacks.py`` runs all of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from mm_cpgd.errors import UserError

SECRET = "the secret beside the folder"
SCRIPT = "</p></svg><script>alert(1)</script><img src=x onerror=alert(2)>\"' -->"


@dataclass(frozen=True)
class Place:
    """Folder of one attack.

    Attributes:
        root: holds the secret, the marker and ``inside``.
        model: folder of an intact tiny policy; not to be changed.
    """

    root: Path
    model: Path

    @property
    def inside(self) -> Path:
        """Where the attack may write."""
        return self.root / "inside"

    @property
    def marker(self) -> Path:
        """Exists if a payload was executed."""
        return self.root / "marker"

    def hostile_model(self, **files: str | bytes) -> Path:
        """Return a copy of the model with these files; ``__`` in a name stands for a full stop."""
        folder = Path(shutil.copytree(self.model, self.inside / "model", dirs_exist_ok=True))
        for name, content in files.items():
            file = folder / name.replace("__", ".")
            file.write_bytes(content.encode() if isinstance(content, str) else content)
        return folder


@dataclass(frozen=True)
class Payload:
    """Object whose unpickling creates the marker."""

    marker: str

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what ``pickle`` calls when it loads the object."""
        return open, (self.marker, "w")


def yaml_tags(place: Place) -> list[str]:
    """Return configs whose tags name Python objects, one per tag that PyYAML knows."""
    path = str(place.marker)
    return [
        f"!!python/object/apply:builtins.open [{path}, w]",
        f"!!python/object/new:io.FileIO [{path}, w]",
        f"!!python/object/apply:os.system ['touch {path}']",
    ]


def yaml_attack(place: Place) -> None:
    """Read the tags in a config, in the config that it extends, and in an override."""
    from mm_cpgd.config.loading import load_config

    # Every tag must be refused; a tag that is read as text would be no attack.
    for number, tag in enumerate(yaml_tags(place)):
        file, heir = place.inside / f"{number}.yaml", place.inside / f"heir-{number}.yaml"
        file.write_text(f"name: {tag}\n")
        heir.write_text(f"extends: {file.name}\n")
        for config, overrides in ((file, ()), (heir, ()), ("quickstart", (f"name={tag}",))):
            try:
                load_config(config, overrides)
            except UserError:
                continue
            raise AssertionError(f"{tag} was accepted in {config}")


def yaml_control(place: Place) -> None:
    """Load the first tag with PyYAML's unsafe loader."""
    import yaml

    yaml.unsafe_load(yaml_tags(place)[0])


def pickle_weights_attack(place: Place) -> None:
    """Load a policy whose weights, and one whose adapter, are pickles."""
    import torch

    file = place.inside / "weights.bin"
    torch.save({"model": Payload(str(place.marker))}, file)
    content = file.read_bytes()
    settings = {"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"]}
    adapter = json.dumps({**settings, "base_model_name_or_path": str(place.model)})
    folder = place.hostile_model(pytorch_model__bin=content)
    for weights in folder.glob("*.safetensors*"):
        weights.unlink()
    _load(folder)
    shutil.rmtree(folder)
    _load(place.hostile_model(adapter_config__json=adapter, adapter_model__bin=content))


def pickle_state_attack(place: Place) -> None:
    """Load the state of a checkpoint that is a pickle, and one that torch wrote."""
    import torch

    from mm_cpgd.checkpoint.serialization import load_state

    file = place.inside / "state.safetensors"
    file.write_bytes(pickle.dumps(Payload(str(place.marker))))
    with contextlib.suppress(Exception):
        load_state(file)
    torch.save(Payload(str(place.marker)), file)
    place.marker.unlink(missing_ok=True)
    with contextlib.suppress(Exception):
        load_state(file)


def pickle_rows_attack(place: Place) -> None:
    """Read rows and predictions from pickles under the names of pickles, of data and of tables."""
    from data import load_examples
    from eval import read_predictions
    from eval.benchmarks.mathvision import benchmark

    for name in (
        "rows.pkl",
        "rows.jsonl",
        "rows.json",
        "rows.parquet",
        "rows.csv",
        "rows.xlsx",
        "rows.json.gz",
    ):
        file = place.inside / name
        file.write_bytes(pickle.dumps(Payload(str(place.marker))))
        with contextlib.suppress(Exception):
            load_examples(str(file))
        with contextlib.suppress(Exception):
            read_predictions(file, benchmark)


def pickle_control(place: Place) -> None:
    """Unpickle the payload."""
    pickle.loads(pickle.dumps(Payload(str(place.marker))))


def code_attack(place: Place) -> None:
    """Load models whose folders bring Python files, and read data whose folder brings a loading script."""
    from data import load_examples

    code = f"open({str(place.marker)!r}, 'w').close()\n"
    folder = place.hostile_model(hostile__py=code)
    for file in ("config.json", "processor_config.json", "tokenizer_config.json"):
        values = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
        kinds = ("AutoConfig", "AutoModelForImageTextToText", "AutoProcessor", "AutoImageProcessor")
        values["auto_map"] = {**dict.fromkeys(kinds, "hostile.H"), "AutoTokenizer": [None, "hostile.H"]}
        (folder / file).write_text(json.dumps(values))
    _load(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "unheard_of"}))
    _load(folder)
    rows = place.inside / "rows"
    rows.mkdir()
    (rows / "rows.py").write_text(code)
    with contextlib.suppress(Exception):
        load_examples(str(rows))


def code_control(place: Place) -> None:
    """Run the code."""
    exec(f"open({str(place.marker)!r}, 'w').close()")


def template_text(place: Place) -> str:
    """Return a chat template that runs a command where Jinja is no sandbox."""
    return f"{{{{ cycler.__init__.__globals__.os.system('touch {place.marker}') }}}}"


def template_attack(place: Place) -> None:
    """Load a model whose chat template runs a command, and encode a prompt with it."""
    from jinja2.exceptions import SecurityError

    from data import Example
    from mm_cpgd.config.schema import PolicyConfig
    from mm_cpgd.policy import load_policy

    folder = place.hostile_model(chat_template__jinja=template_text(place))
    with contextlib.suppress(SecurityError, UserError):
        encoder = load_policy(PolicyConfig(model=str(folder))).encoder
        encoder.encode(Example("x", "How many?", "3"))


def template_control(place: Place) -> None:
    """Render the template without a sandbox."""
    import jinja2

    jinja2.Environment(autoescape=True).from_string(template_text(place)).render()


def completion_attack(place: Place) -> None:
    """Score completions, and gold answers, that are Python, LaTeX with Python, and sympy's own calls."""
    from rewards.example import RewardExample
    from rewards.registry import get_rule

    call = f"open({str(place.marker)!r}, 'w')"
    texts = (call, f"__import__('builtins').{call}", f"\\sin({call})", f"Symbol('x').__class__({call})")
    for rule in ("accuracy", "numeric", "boxes", "counting", "program_output", "edit_similarity"):
        for text in texts:
            for answer, gold in ((text, "3"), ("3", text), (text, text)):
                with contextlib.suppress(Exception):
                    get_rule(rule)(f"<answer>{answer}</answer>", RewardExample(gold))


def path_rows_attack(place: Place) -> None:
    """Train on rows whose ids, texts and images lead out of the run folder, and read the report.

    Images that are devices or pipes would never end, were they opened.
    """
    run = place.inside / "run"
    rows = place.inside / "rows.jsonl"
    ids = ("../../x", "/etc/x", "..\\x", SCRIPT, "a/b", "~")
    values = [{"id": name, "question": SCRIPT, "answer": SCRIPT} for name in ids]
    os.mkfifo(place.inside / "pipe")
    images = (
        "../secret.txt",
        "/dev/zero",
        "/dev/stdin",
        "pipe",
        "/proc/self/environ",
        "http://127.0.0.1:9/x",
    )
    values += [{"id": image, "question": "q", "answer": "a", "image": image} for image in images]
    rows.write_text("".join(json.dumps(value) + "\n" for value in values))
    config = place.inside / "run.yaml"
    config.write_text(
        f"name: attack\noutput: {run}\npolicy: {{model: {place.model}}}\n"
        f"data: {{train: {{path: {rows}}}, max_bad_share: 1.0}}\n"
        "rollout: {prompts: 6, completions: 2, max_new_tokens: 4}\n"
        "training: {iterations: 1}\n"
    )
    _train(config)
    check_page(run / "report.html")


def path_checkpoint_attack(place: Place) -> None:
    """Find and replace checkpoints whose manifests name files outside, and which are links to outside."""
    from mm_cpgd.checkpoint.folder import newest_checkpoint, save_checkpoint
    from mm_cpgd.checkpoint.serialization import CheckpointError

    checkpoints, outside = place.inside / "checkpoints", place.root / "outside"
    bad = checkpoints / "step-1"
    bad.mkdir(parents=True)
    names = {"../../../secret.txt": [1, "0"], "../../../outside/kept": [1, "0"], "/etc/passwd": [1, "0"]}
    (bad / "manifest.json").write_text(json.dumps({"format": 1, "step": 1, "files": names}))
    (checkpoints / "step-2").symlink_to(outside)
    (checkpoints / ".step-3.x.1.tmp").symlink_to(outside)
    newest_checkpoint(checkpoints, lambda text: None)
    for step in (1, 2, 3, 4, 5):
        # A link in the place of a checkpoint may be an error; only what it leads to must stay as it is.
        with contextlib.suppress(CheckpointError):
            save_checkpoint(checkpoints, step, _write_file, keep=1)


def path_report_attack(place: Place) -> None:
    """Draw the report of a run folder whose files name images outside and hold scripts."""
    from mm_cpgd.report.page import write_report
    from mm_cpgd.tracking import MetricsLog

    run = place.inside / "run"
    (run / "rollouts" / "images").mkdir(parents=True)
    (run / "rollouts" / "images" / "link.png").symlink_to(place.root / "secret.txt")
    (run / "config.yaml").write_text(
        json.dumps({"name": SCRIPT, "policy": {"model": SCRIPT}, "seed": SCRIPT})
    )
    MetricsLog(run / "metrics.jsonl").write(1, {"reward/mean": 1.0, SCRIPT: 1.0})
    verdict = {"score": 1.0, "status": SCRIPT, "extracted": SCRIPT, "reason": SCRIPT}
    completion = {"text": SCRIPT, "tokens": 1, "finished": True, "total": 1.0, "advantage": 0.5}
    row = {"id": SCRIPT, "question": SCRIPT, "answer": SCRIPT}
    row |= {"completions": [{**completion, "components": {SCRIPT: verdict}}] * 2}
    row |= {"images": ["../../../secret.txt", "link.png", str(place.root / "secret.txt"), SCRIPT]}
    (run / "rollouts" / "iteration-000001.jsonl").write_text(json.dumps(row) + "\n")
    check_page(write_report(run))


@dataclass(frozen=True)
class Attack:
    """One attack, and the control that shows what its payload does without protection."""

    run: Callable[[Place], None]
    control: Callable[[Place], None] | None = None


ATTACKS: dict[str, Attack] = {
    "yaml-tags": Attack(yaml_attack, yaml_control),
    "pickle-weights": Attack(pickle_weights_attack, pickle_control),
    "pickle-state": Attack(pickle_state_attack, pickle_control),
    "pickle-rows": Attack(pickle_rows_attack, pickle_control),
    "code-in-folders": Attack(code_attack, code_control),
    "chat-template": Attack(template_attack, template_control),
    "completions": Attack(completion_attack, code_control),
    "paths-in-rows": Attack(path_rows_attack),
    "paths-in-checkpoints": Attack(path_checkpoint_attack),
    "paths-in-a-report": Attack(path_report_attack),
}


def breach(attack: Callable[[Place], None], place: Place) -> str | None:
    """Run an attack; return what it achieved, None if it held."""
    place.inside.mkdir(parents=True)
    (place.root / "secret.txt").write_text(SECRET)
    (place.root / "outside").mkdir()
    (place.root / "outside" / "kept").write_text(SECRET)
    before = dict(_content(place))
    failure = _failure(attack, place)
    after = dict(_content(place))
    if place.marker.exists():
        return "its code was executed"
    changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    if changed:
        return f"it changed {', '.join(changed)}"
    return f"{type(failure).__name__}: {failure}" if failure else None


def _failure(attack: Callable[[Place], None], place: Place) -> Exception | None:
    """Run an attack; return what it raised, which is no end of its effects."""
    try:
        attack(place)
    except Exception as error:
        return error
    return None


def _content(place: Place) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of every file outside of ``inside``."""
    for folder, folders, files in os.walk(place.root):
        if Path(folder) == place.root:
            folders.remove("inside")
        for name in (*folders, *files):
            path = Path(folder, name)
            yield str(path.relative_to(place.root)), path.read_bytes() if path.is_file() else b""


def _load(folder: Path) -> None:
    """Load processor, model and sizes of a model folder, whatever each of them raises."""
    from mm_cpgd.config.schema import PolicyConfig
    from mm_cpgd.policy import load_policy
    from mm_cpgd.policy.model import load_processor
    from mm_cpgd.preflight.model_size import measure_model

    config = PolicyConfig(model=str(folder))
    for load in (load_processor, load_policy, measure_model):
        with contextlib.suppress(Exception):
            load(config)


def _write_file(folder: Path) -> None:
    (folder / "weights").write_text("x")


def _train(config: Path) -> None:
    """Run the command line's training; raises ``CalledProcessError`` if it fails."""
    subprocess.run(
        [sys.executable, "-m", "mm_cpgd", "train", str(config)],
        cwd=config.parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        check=True,
        capture_output=True,
        timeout=300,
    )


class _Page(HTMLParser):
    """Tags and attributes of a page, as a browser sees them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep what could run a script."""
        self.found += [tag] if tag in ("script", "iframe", "object", "embed") else []
        self.found += [name for name, value in attrs if name.startswith("on")]
        self.found += [value or "" for _, value in attrs if re.match(r"\s*javascript:", value or "", re.I)]


def check_page(file: Path) -> None:
    """Raise ``AssertionError`` if the page could run a script or shows the secret."""
    html = file.read_text(encoding="utf-8")
    if found := _Page(html).found:
        raise AssertionError(f"{file.name} holds {found}")
    if SECRET in html:
        raise AssertionError(f"{file.name} shows a file outside of the run folder")


def main(words: list[str]) -> int:
    """Run the attacks whose names contain one of the words; return the exit status."""
    from mm_cpgd.tiny.build import build_tiny

    chosen = [name for name in ATTACKS if not words or any(word in name for word in words)]
    status = 0
    with tempfile.TemporaryDirectory() as folder:
        model = build_tiny(Path(folder) / "model")
        for name in chosen:
            problem = breach(ATTACKS[name].run, Place(Path(folder) / name, model))
            print(f"{name}: {problem or 'held'}")
            status = 1 if problem else status
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
