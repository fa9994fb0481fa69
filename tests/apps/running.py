"""Run the scripts of this folder in processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import warm_start

APPS = Path(__file__).parent


def run_plain(name, *arguments, module):
    """Return what the script printed last, from JSON; its process has the module already."""
    return json.loads(warm_start.run([APPS / f"{name}.py", *arguments], module).splitlines()[-1])


def run_sweep(name, slots, jobs):
    """Return what each job's ``train`` of the script gave in a sweep, in their order."""
    done = subprocess.run(
        [sys.executable, "sweep_script.py", name, str(slots), *map(json.dumps, jobs)],
        cwd=APPS,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])
