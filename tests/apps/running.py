"""Run the scripts of this folder in separate processes."""

import json
import os
from pathlib import Path

import warm_start

APPS = Path(__file__).parent


def run_plain(name, *arguments, module):
    """Return what the script printed last, from JSON; its process has the module already."""
    modules = (*warm_start.MODULES, module)
    return _printed(warm_start.checked([APPS / f"{name}.py", *arguments], modules=modules))


def run_sweep(name, slots, jobs):
    """Return what each job's ``train`` of the script gave in a sweep, in their order."""
    return _printed(
        warm_start.checked(
            ["sweep_script.py", name, slots, *map(json.dumps, jobs)],
            cwd=APPS,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            timeout=300,
        )
    )


def _printed(done):
    return json.loads(done.stdout.splitlines()[-1])
