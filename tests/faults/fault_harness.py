"""Start, kill and resume sweeps of ``fault_child.py``, and check their files."""

import json
import os
import subprocess
import threading
import time
from pathlib import Path

import torch
import warm_start

from junky_core.record.reader import load_state, read_journal

CHILD = Path(__file__).with_name("fault_child.py")
TIMEOUT_S = 120


class Child:
    """One process that runs, or resumes, a sweep."""

    def __init__(self, tmp_path, **options):
        self.path = tmp_path
        self.folder = Path(options.pop("folder", tmp_path / "sweep"))
        self.result_path = tmp_path / "result.json"
        self.starts_path = tmp_path / "starts.jsonl"
        self.options = {
            "folder": str(self.folder),
            "starts": str(self.starts_path),
            "result": str(self.result_path),
            **options,
        }

    def start(self):
        path = self.path / "options.json"
        path.write_text(json.dumps(self.options))
        self.stdout_path = self.path / "stdout.txt"
        self.errors = []
        self._reached = {what: threading.Event() for what in ("READY", "RUNNING", "SLOW")}
        readable, writable = os.pipe()
        self._stderr = open(readable, encoding="utf-8")
        with self.stdout_path.open("w") as stdout, open(writable, "wb") as stderr:
            self.process = warm_start.start(
                [CHILD, path], stdout, stderr, modules=("junky_core.autotrain",)
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def _read(self):
        for line in self._stderr:
            said = line.split()[-1:]  # a worker's lines have its job's prefix
            if said and said[0] in self._reached:
                self._reached[said[0]].set()
            else:
                self.errors.append(line)
        for event in self._reached.values():  # it is over
            event.set()

    def wait_until(self, what):
        assert self._reached[what].wait(TIMEOUT_S)
        return self

    def wait_for_text(self, text):
        deadline = time.monotonic() + TIMEOUT_S
        while text not in self.output():
            assert self.process.poll() is None, self.output()
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.02)

    def wait(self, timeout=TIMEOUT_S):
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self._reader.join(60)
        self._stderr.close()
        return status

    def run(self):
        """Run to the end; return the result."""
        status = self.start().wait()
        assert status == 0, self.output()
        return self.result()

    def kill_after(self, seconds):
        """Kill it some time after its sweep began; return whether it was still running."""
        self.wait_until("READY")
        time.sleep(seconds)  # the test is about this instant
        self.process.kill()
        return self.wait() == -9

    def output(self):
        return self.stdout_path.read_text() + "".join(self.errors)

    def result(self):
        return json.loads(self.result_path.read_text())

    def starts(self):
        """Return the params of every job that was started, in order, over all sessions."""
        if not self.starts_path.exists():
            return []
        return [json.loads(line) for line in self.starts_path.read_text().splitlines()]

    def state(self):
        return load_state(self.folder)

    def finished(self):
        """Return the params of the jobs that the journal has as finished."""
        if not (self.folder / "journal.jsonl").exists():
            return []
        return [j.params for j in self.state().by_num.values() if j.status == "finished"]

    def events(self):
        return [record["event"] for record in read_journal(self.folder)]


def ranking(result):
    """Return the part of a result that does not depend on interruptions: all but the names."""
    return [(score, params, value) for _name, score, params, value in result["stats"]]


def check_best_file(child):
    """Check that the best model's file is complete, with the weights of the recorded score."""
    path = child.folder / "model.pt"
    if not path.exists():
        return None
    weights = torch.load(path, weights_only=True)
    record = child.state().match_best_file(path)
    assert record is not None
    expected = torch.full_like(weights["weight"], record.score)
    assert torch.equal(weights["weight"], expected)
    return record


def check_complete(child, undisturbed):
    """Check that the last session finished, lost nothing, ran nothing twice, and ranks the same."""
    result = child.result()
    state = child.state()
    assert ranking(result) == ranking(undisturbed)
    assert result["best"][1:] == undisturbed["best"][1:]
    assert result["failed"] == 0
    assert [job.finished_times for job in state.by_num.values()] == [1] * len(undisturbed["stats"])
    assert sorted(state.by_num) == list(range(len(undisturbed["stats"])))
    record = check_best_file(child)
    assert record.score == undisturbed["best"][1]
    assert state.by_num[record.job].params == undisturbed["best"][2]
