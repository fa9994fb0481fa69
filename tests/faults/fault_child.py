"""A sweep in a separate process, for tests that kill it, signal it or break its disk.

Run as ``python fault_child.py OPTIONS.json``. Its jobs do as the options say; a job's model
holds its score as weight, so that whoever finds the best model's file can tell which score it
should have. Each start of a job is noted in a file of its own, beside the journal's word.
"""

import ctypes
import faulthandler
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch

from junky_core.autotrain import torch_autotrain
from junky_core.errors import BestModelError
from junky_core.events import JobStarted, SweepStarted

OPTIONS = json.loads(Path(sys.argv[1]).read_text())
FOLDER = Path(OPTIONS["folder"])
STARTS = Path(OPTIONS["starts"])
PLAIN_WRITE = os.write  # for the test's own records, which no fault may hit
if "mark" in OPTIONS:  # in the environment of all processes that this one starts
    os.environ["FAULT_MARK"] = OPTIONS["mark"]


def be_slow(where):
    """Tell the test that a worker process has come so far, and stay there."""
    if OPTIONS.get("slow") == where:
        os.write(2, b"SLOW\n")
        time.sleep(600)


if __name__ != "__main__":
    be_slow("import")


def note_start(params):
    descriptor = os.open(STARTS, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    PLAIN_WRITE(descriptor, (json.dumps(params) + "\n").encode())
    os.close(descriptor)


def score_of(a, b, epoch):
    """A score that increases with the epochs, and differs between jobs."""
    return (((a * 7919 + b * 104729) % 1009) + epoch / 10) / 1009


def make_model(a, b):
    model = SlowModel(OPTIONS.get("width", 4), 1)
    return model, (a, b)


class SlowModel(torch.nn.Linear):
    """A model whose weights take long to copy."""

    def state_dict(self, *args, **kwargs):
        be_slow("save")
        return super().state_dict(*args, **kwargs)


def make_loaders():
    be_slow("loaders")
    return ()


def train(device, loaders, model, ab, save_best, log_prefix):
    a, b = ab
    note_start({"a": a, "b": b})
    if a * OPTIONS["b"] + b >= OPTIONS.get("hold_lock_from", math.inf):
        ctypes.PyDLL(None).sleep(600)  # with the interpreter's lock
    inputs = torch.ones(1, model.in_features)
    for epoch in range(OPTIONS.get("epochs", 3)):
        time.sleep(OPTIONS.get("epoch_s", 0.005))
        model(inputs)
        score = score_of(a, b, epoch)
        with torch.no_grad():
            model.weight.fill_(score)
        save_best(model, score)
        fault = FAULTS.get(OPTIONS.get("fault"))
        if fault is not None:
            fault(a, b, epoch)
    while a * OPTIONS["b"] + b >= OPTIONS.get("endless_from", math.inf):
        model(inputs)  # a cancellation point
        time.sleep(0.005)
    if OPTIONS.get("block") and b == OPTIONS["block"] - 1:
        threading.Event().wait()  # never reaches a cancellation point
    return (score, {"a": a, "b": b})


def fill_disk(a, b, epoch):
    filler = FOLDER.parent / "filler"
    if (a, b, epoch) == (0, 3, 0):
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 512)
            except OSError:
                pass
    if OPTIONS.get("recover") and (a, b, epoch) == (1, 0, 0):
        filler.unlink()


def limit_files(a, b, epoch):
    import resource

    if (a, b, epoch) == (0, 3, 0):
        limit = (FOLDER / "journal.jsonl").stat().st_size + 100
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    if OPTIONS.get("recover") and (a, b, epoch) == (1, 0, 0):
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)


def delete_folder(a, b, epoch):
    if (a, b, epoch) == (0, 3, 0):
        shutil.rmtree(FOLDER, ignore_errors=True)


def read_only_folder(a, b, epoch):
    if (a, b, epoch) == (0, 3, 0):
        set_read_only(FOLDER, True)
    if OPTIONS.get("recover") and (a, b, epoch) == (1, 0, 0):
        set_read_only(FOLDER, False)


def set_read_only(folder, on):
    """Allow no new or renamed files there; for root this needs the file system's own flag."""
    if os.geteuid() == 0:
        subprocess.run(["chattr", "+i" if on else "-i", str(folder)], check=True)
    else:
        folder.chmod(0o555 if on else 0o755)


FAULTS = {
    "fill_disk": fill_disk,
    "limit_files": limit_files,
    "delete_folder": delete_folder,
    "read_only_folder": read_only_folder,
}


def kill_at_call(number):
    """Kill this process at the ``number``-th call that changes a file; a write is left incomplete."""
    count = 0
    lock = threading.Lock()

    def due():
        nonlocal count
        with lock:
            count += 1
            return count == number

    def die():
        os.kill(os.getpid(), signal.SIGKILL)
        threading.Event().wait()

    write, fsync, replace = os.write, os.fsync, Path.replace

    def killed_write(descriptor, data):
        if descriptor > 2 and due():
            write(descriptor, bytes(data[: len(data) // 2]))
            die()
        return write(descriptor, data)

    def killed_fsync(descriptor):
        if due():
            die()
        fsync(descriptor)

    def killed_replace(self, target):
        if due():
            die()
        done = replace(self, target)
        if due():
            die()
        return done

    os.write, os.fsync, Path.replace = killed_write, killed_fsync, killed_replace


class Announcer:
    """Tells the test, on stderr, how far the sweep is."""

    def __init__(self):
        self.started = 0

    def on_event(self, event):
        if isinstance(event, SweepStarted):
            print("READY", file=sys.stderr, flush=True)
        if isinstance(event, JobStarted):
            self.started += 1
            if self.started == OPTIONS.get("announce"):
                print("RUNNING", file=sys.stderr, flush=True)


def main():
    faulthandler.enable()
    if OPTIONS.get("kill_at_call"):
        kill_at_call(OPTIONS["kill_at_call"])
    try:
        run()
    except BestModelError as error:
        write_result(error.result)
        raise


def run():
    result = torch_autotrain(
        make_model,
        train,
        make_loaders,
        make_model_fit_params=[
            ("a", list(range(OPTIONS["a"]))),
            ("b", list(range(OPTIONS["b"]))),
        ],
        devices={"cpu": OPTIONS.get("slots", 2)},
        sweep_dir=FOLDER,
        resume=OPTIONS.get("resume", False),
        observers=[Announcer()],
        best_model_device=OPTIONS.get("best_model_device"),
        **OPTIONS.get("kwargs", {}),
    )
    write_result(result)


def write_result(result):
    Path(OPTIONS["result"]).write_text(
        json.dumps(
            {
                "best": [
                    result.best_model_name,
                    result.best_model_score,
                    result.best_model_params,
                ],
                "stats": result.stats,
                "failed": len(result.failed),
            }
        )
    )


if __name__ == "__main__":
    main()
