"""Stand-ins for SLURM's commands: ``srun`` starts its tasks on this machine, ``scontrol`` names machines.

As the real ones: tasks get their numbers in the environment, ``--kill-on-bad-exit`` ends all tasks after one
that fails, SIGTERM is passed on, and the exit status is the largest of the tasks'.
"""

from __future__ import annotations

import sys
from pathlib import Path

SRUN = """\
#!{python}
import argparse, json, os, signal, subprocess, sys, time

parser = argparse.ArgumentParser()
for name in ("nodes", "nodelist", "ntasks-per-node", "ntasks", "output", "gpu-bind", "kill-on-bad-exit"):
    parser.add_argument("--" + name)
chosen, command = parser.parse_known_args()
nodes = (chosen.nodelist or os.environ["FAKE_NODES"]).split(",")
count = int(chosen.ntasks or os.environ["SLURM_NTASKS"])
each = count // len(nodes)
with open(os.environ["FAKE_LOG"], "a") as log:
    log.write(json.dumps({{"options": vars(chosen), "command": command}}) + "\\n")
tasks = []
for rank in range(count):
    own = {{"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank % each), "FAKE_NODE": nodes[rank // each]}}
    tasks.append(subprocess.Popen(command, env={{**os.environ, **own}}))

def pass_on(number, frame):
    for task in tasks:
        task.send_signal(number)

signal.signal(signal.SIGTERM, pass_on)
while any(task.poll() is None for task in tasks):
    if chosen.kill_on_bad_exit == "1" and any(task.poll() for task in tasks):
        time.sleep(5)  # KillWait
        for task in tasks:
            task.kill()
    time.sleep(0.05)
codes = [task.wait() for task in tasks]
sys.exit(max(code if code >= 0 else 128 - code for code in codes))
"""
SCONTROL = """\
#!{python}
import os, sys

if sys.argv[1:3] == ["show", "hostnames"]:
    print(os.environ["FAKE_NODES"].replace(",", "\\n"))
else:
    with open(os.environ["FAKE_LOG"] + ".scontrol", "a") as log:
        log.write(" ".join(sys.argv[1:]) + "\\n")
"""


def write_commands(folder: Path) -> None:
    """Write ``srun`` and ``scontrol`` into the folder, which the caller puts on PATH."""
    folder.mkdir(exist_ok=True)
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        write_executable(folder / name, text.format(python=sys.executable))


def write_executable(file: Path, text: str) -> None:
    """Write a program."""
    file.write_text(text)
    file.chmod(0o755)
