"""``torch_autotrain`` on processes in whole programs: what people's scripts and notebooks hold."""

import signal
import subprocess
import sys
import time

import pytest
from served import is_gone
from test_process_scripts import descendants, run_script

from junky_core.executors.processes.fork_server import is_supported
from junky_core.record.reader import read_journal

pytestmark = pytest.mark.skipif(not is_supported(), reason="the fork server is for Linux")

SCRIPT = """
import os, sys
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, TensorDataset

from junky_core import current_job, torch_autotrain

@dataclass(frozen=True)
class Config:
    bias: bool = True

class Net(torch.nn.Linear):
    pass

def make_loaders():
    data = TensorDataset(torch.arange(8.0).reshape(8, 1))
    return DataLoader(data, batch_size=2, num_workers=2, persistent_workers=True)

def vocabulary(size):
    return list(range(size))

def trainer(scale):
    def train(device, loader, model, config, save_best, log_prefix, lr):
        job = current_job()
        total = sum(float(x.sum()) for (x,) in loader)
        print(f"{log_prefix}sum {total}")
        os.write(1, f"from C in job {job.num}\\n".encode())
        torch.save(model, f"net{job.num}.pt")
        save_best(model, scale * job.params["width"])
        return total, job.shared(vocabulary, 3), config, job.log_prefix == log_prefix, lr
    return train

def make(config, width):
    return Net(width, 1, bias=config.bias), config

def main():
    result = torch_autotrain(
        make,
        trainer(scale=2.0),
        make_loaders,
        make_model_fit_params=[("width", [1, 2, 3]), ("config", [Config(), Config(bias=False)])],
        train_kwargs={"lr": (lambda: 0.1)()},
        devices="cpu*2",
        best_model_device="cpu",
        executor="processes",
        progress=True,
    )
    assert not result.failed, result.failed
    assert type(result.best_model) is Net and result.best_model.in_features == 3
    for _, score, params, value in result.stats:
        assert score == 2 * params["width"], score
        assert value == (28.0, [0, 1, 2], params["config"], True, 0.1), value

if __name__ == "__main__":
    if "load" in sys.argv:
        nets = [torch.load(f"net{num}.pt", weights_only=False) for num in range(6)]
        assert all(type(net) is Net for net in nets)
        assert [net.in_features for net in nets] == [1, 1, 2, 2, 3, 3]
    else:
        main()
    print("done")
"""


def test_a_script_with_its_own_classes_closures_and_loaders(tmp_path):
    done = run_script(tmp_path / "script.py", SCRIPT)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "done"
    assert any(line.startswith("junky progress: 6 of 6 jobs finished, ended") for line in lines)
    names = {line.partition(": job ")[0] for line in lines if ": job " in line}
    assert len(names) == 6
    for text in ("sum 28.0", "from C in job"):
        said = [line for line in lines if text in line]
        assert {line.partition(": ")[0] for line in said} == names
        assert all(line.count("Thread-") == 1 for line in said)
    again = subprocess.run(
        [sys.executable, "script.py", "load"], cwd=tmp_path, capture_output=True, text=True
    )
    assert again.stdout == "done\n", again.stderr


SEEDS = """
import json, random, sys
import torch
from junky_core import torch_autotrain

GRID = [("width", [4, 8, 16]), ("lr", [0.1, 0.01]), ("dropout", [0.0, 0.2]), ("bias", [True, False])]
SEED = 7

def make_model(width, lr, dropout, bias):
    model = torch.nn.Sequential(
        torch.nn.Linear(3, width, bias=bias), torch.nn.Dropout(dropout), torch.nn.Linear(width, 1)
    )
    return model, torch.optim.Adam(model.parameters(), lr=lr)

def make_loader():
    own = torch.Generator().manual_seed(1)  # a factory's draws are not those of its jobs
    rows = torch.randn(32, 4, generator=own)
    data = torch.utils.data.TensorDataset(rows[:, :3], rows[:, 3:])
    return torch.utils.data.DataLoader(data, batch_size=8, shuffle=True)

def train(device, loader, model, optimizer, save_best, log_prefix):
    losses = []
    for _ in range(3):
        for x, y in loader:
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(model(x), y + 0.1 * torch.randn_like(y))
            loss.backward()
            optimizer.step()
            losses.append(loss.item().hex())
    losses.append(random.random().hex())
    losses.append(sum(p.double().sum() for p in model.parameters()).item().hex())
    save_best(model, -float.fromhex(losses[-3]))
    return losses

def on(executor, slots):
    result = torch_autotrain(
        make_model, train, make_loader, make_model_fit_params=GRID, seed=SEED,
        devices=f"cpu*{slots}", executor=executor,
    )
    return {repr(params): value for _, _, params, value in result.stats}

def plain(params):
    loader = make_loader()
    torch.manual_seed(SEED)
    random.seed(SEED)
    model, optimizer = make_model(**params)
    return train(None, loader, model, optimizer, lambda *_: None, "")

if __name__ == "__main__":
    torch.set_num_threads(1)
    from junky_core import expand_fit_params
    alone = {repr(params): plain(params) for params in expand_fit_params(GRID)}
    assert len(alone) == 24
    assert len({tuple(losses) for losses in alone.values()}) == 24
    for executor in ("threads", "processes"):
        swept = on(executor, 2)
        assert swept == alone, executor
    print("same")
"""


def test_seeds_give_the_same_on_threads_on_processes_and_in_a_plain_script(tmp_path):
    done = run_script(tmp_path / "script.py", SEEDS)
    assert done.stdout.splitlines()[-1:] == ["same"], done.stdout + done.stderr


GLOBALS = """
import argparse, sys, threading
import torch
from junky_core import torch_autotrain

LR = 0.1
SETTINGS = {"scales": [1]}
LOCK = threading.Lock()  # each worker has its own

class Net(torch.nn.Linear):
    def scaled(self):
        return args.scale * self.in_features

def helper():
    with LOCK:
        return late()

def train(device, loaders, model, save_best, log_prefix):
    if args.lock:
        lock.acquire()
    return LR, SETTINGS, model.scaled(), helper(), weights.tolist()

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--scale", type=int, default=1)
    parser.add_argument("--lock", action="store_true")
    args = parser.parse_args(sys.argv[2:] or ["--scale", "3"])
    LR = 0.3
    SETTINGS["scales"].append(2)
    weights = torch.ones(2)
    if args.lock or not args.scale:
        lock = threading.Lock()

    def late():
        return "late", weights.numel()

    result = torch_autotrain(
        Net, train, make_model_kwargs={"in_features": 2, "out_features": 1},
        executor="processes", sweep_dir="SWEEP",
    )
    print(result.stats[0][3])
"""


def test_jobs_see_the_script_s_variables_as_they_are_when_the_sweep_begins(tmp_path):
    done = run_script(tmp_path / "script.py", GLOBALS)
    assert done.returncode == 0, done.stdout + done.stderr
    told = done.stdout.splitlines()[-1]
    assert told == "(0.3, {'scales': [1, 2]}, 6, ('late', 2), [1.0, 1.0])"


def test_a_variable_that_jobs_use_and_that_cannot_be_sent_is_named(tmp_path):
    text = GLOBALS.replace("sys.argv[2:] or", '["--lock"] or')
    done = run_script(tmp_path / "script.py", text)
    assert done.returncode == 1
    assert (
        "ConfigError: the script's variable 'lock', which jobs use, cannot be sent" in done.stderr
    )
    assert not (tmp_path / "SWEEP").exists()


FAULTY = """
import sys
import torch
from junky_core import torch_autotrain

def make(width):
    return torch.nn.Linear(width, 1)

def train(device, loaders, model, save_best, log_prefix):
    save_best(model, 1.0)

def main():
    torch_autotrain(make, train, make_model_fit_params=[("width", [1, 2, 3])], devices="cpu*2",
                    executor="processes", sweep_dir="SWEEP")

"""


@pytest.mark.parametrize(
    "call",
    ["main()", "for _ in range(3):\n    main()", "try:\n    main()\nfinally:\n    print('over')"],
)
def test_a_script_that_is_surely_not_guarded_is_refused_before_anything_is_made(tmp_path, call):
    done = run_script(tmp_path / "script.py", FAULTY + call + "\n")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"junky_core.errors.ConfigError: the script {tmp_path}/script.py starts")
    assert last.endswith('Put the call under: if __name__ == "__main__":')
    assert "AUTOTRAIN STARTED" not in done.stdout
    assert not (tmp_path / "SWEEP").exists()


def test_a_guard_that_is_none_is_found_by_the_workers(tmp_path):
    done = run_script(tmp_path / "script.py", FAULTY + "if torch:\n    main()\n")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"junky_core.errors.ConfigError: the script {tmp_path}/script.py starts")
    assert "no slot" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "guard",
    [
        'GUARD = __name__ == "__main__"\nif GUARD:\n    main()\n',
        'try:\n    if __name__ == "__main__":\n        main()\nfinally:\n    print("over")\n',
    ],
)
def test_a_script_that_is_guarded_is_not_refused(tmp_path, guard):
    done = run_script(tmp_path / "script.py", FAULTY + guard)
    assert done.returncode == 0, done.stderr
    assert "AUTOTRAIN FINISHED" in done.stdout


def test_a_script_that_raises_when_it_is_imported_says_so(tmp_path):
    text = FAULTY.replace(
        "import torch\n", "import torch\nassert __name__ == '__main__', 'no camera'\n", 1
    )
    done = run_script(tmp_path / "script.py", text + 'if __name__ == "__main__":\n    main()\n')
    assert done.returncode == 1
    assert "junky_core.errors.ConfigError: " in done.stderr
    assert done.stderr.count("AssertionError: no camera") == 1
    assert "no slot" not in done.stdout + done.stderr


KILLED = """
import os, sys, threading
from pathlib import Path
import torch
from junky_core import torch_autotrain

def make(width):
    return torch.nn.Linear(width, 1)

def train(device, loaders, model, save_best, log_prefix):
    with open("began", "a") as began:
        began.write(f"{model.in_features}\\n")
    save_best(model, model.in_features)
    if model.in_features > 4 and not Path("resume").exists():
        threading.Event().wait()

if __name__ == "__main__":
    result = torch_autotrain(
        make, train, make_model_fit_params=[("width", range(1, 9))], devices="cpu*2",
        executor="processes", sweep_dir="SWEEP", resume=Path("resume").exists(),
    )
    print(sorted(score for _, score, *_ in result.stats), result.best_model_score)
"""


def finished(folder):
    if not (folder / "journal.jsonl").exists():
        return 0
    return sum(record["event"] == "job_finished" for record in read_journal(folder))


def test_a_sweep_whose_driver_was_killed_is_resumed(tmp_path):
    (tmp_path / "script.py").write_text(KILLED)
    began = tmp_path / "began"
    command = [sys.executable, "script.py"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as driver:
        end = time.monotonic() + 120
        while finished(tmp_path / "SWEEP") < 4 or len(began.read_text().splitlines()) < 6:
            assert time.monotonic() < end
            assert driver.poll() is None
            time.sleep(0.01)
        workers = descendants(driver.pid)
        driver.send_signal(signal.SIGKILL)
    assert all(is_gone(pid) for pid in workers)
    (tmp_path / "resume").touch()
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0] 8.0", (
        done.stderr
    )
    ran = sorted(map(int, began.read_text().split()))
    assert ran == [1, 2, 3, 4, 5, 5, 6, 6, 7, 8]
