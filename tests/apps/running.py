"""Run the scripts of this folder in processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

APPS = Path(__file__).parent


def run_script(name, *arguments):
    """Return what the script printed last, from JSON."""
    done = subprocess.run(
        [sys.executable, f"{name}.py", *map(str, arguments)],
        cwd=APPS,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def run_sweep(name, slots, jobs):
    """Return what each job's ``train`` of the script gave in a sweep, in their order."""
    return run_script("sweep_script", name, slots, *map(json.dumps, jobs))
