"""What the tests of the fork server have its workers do, by name."""

import ctypes
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path


def _answer(descriptor, value):
    os.write(descriptor, json.dumps(value).encode() + b"\n")


def private_kb():
    """Return the memory that this process shares with no other."""
    with open("/proc/self/smaps_rollup") as rollup:
        return sum(int(line.split()[1]) for line in rollup if line.startswith("Private_"))


def tell_about_itself(given, answer):
    _answer(
        answer,
        {
            "given": given,
            "pid": os.getpid(),
            "parent": os.getppid(),
            "group": os.getpgid(0),
            "ignores_sigint": signal.getsignal(signal.SIGINT) == signal.SIG_IGN,
            "threads": threading.active_count(),
            "modules": [name for name in given if name in sys.modules],
            "descriptors": sorted(map(int, os.listdir("/proc/self/fd"))),
            "stdin": os.readlink("/proc/self/fd/0"),
            "private_kb": private_kb(),
        },
    )


def draw(_given, answer):
    import numpy as np
    import torch

    drawn = [random.random(), float(np.random.rand()), float(torch.rand(1, dtype=torch.double))]
    _answer(answer, [drawn, torch.cuda.is_initialized()])


def end(given, *_):
    if given == "segfault":
        ctypes.string_at(0)
    elif given == "abort":
        os.abort()
    elif given == "exit":
        os._exit(3)
    elif given == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif given == "raise":
        raise ValueError("of the worker")


def say_at_exit(given, answer):
    import atexit

    atexit.register(_answer, answer, given)


def wait_for_ever(_given, answer):
    _answer(answer, os.getpid())
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(60)


def hold_the_interpreter(_given, answer):
    """Loop in native code that never releases the interpreter's lock."""
    _answer(answer, os.getpid())
    sum(iter(int, 1))


def leave_children(_given, answer):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    forked = os.fork()
    if forked == 0:
        time.sleep(600)
        os._exit(0)
    _answer(answer, [child.pid, forked])


class FaultRunner:
    """What the jobs of the tests of worker processes do: ``params["do"]`` names a method.

    ``fault`` happens when a slot is opened, on each of its tries while ``count`` is below
    ``times``; ``count`` is a file that grows by a byte each time. Only on ``slot``, if given.
    """

    def __init__(self, fault="", count=None, times=99, slot=None):
        self.fault, self.count, self.times, self.slot = fault, count, times, slot

    def open_slot(self, slot):
        if not self.fault or self.slot not in (None, slot.spec.index):
            return
        if self.fault == "hang":
            note(self.count, os.getpid())
            self.loop(None)
        with open(self.count, "ab") as file:
            file.write(b"x")
            tries = file.tell()
        if tries <= self.times:
            end(self.fault)

    def run(self, _attempt, job):
        what = job.params.get("do", "return")
        once = job.params.get("once")
        if once and job.attempt > 1:
            return "again"
        if hasattr(self, what):
            return getattr(self, what)(job)
        return end(what)

    def keep(self, _attempt, _exception):
        pass

    def pid(self, _job):
        return os.getpid()

    def memory(self, _job):
        return private_kb()

    def save(self, job):
        import torch

        for score in job.params["scores"]:
            model = torch.nn.Linear(job.params.get("width", 1), 1)
            torch.nn.init.constant_(model.weight, score)
            job.save_best(model, score)
        if "then" in job.params:
            end(job.params["then"])

    def loop(self, _job):
        sum(iter(int, 1))

    def ignore_sigterm(self, _job):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            time.sleep(60)

    def leave_child(self, job):
        forked = os.fork()
        if forked == 0:
            time.sleep(600)
            os._exit(0)
        with open(job.params["pids"], "w") as file:
            file.write(str(forked))
        end("segfault")

    def leave_child_and_return(self, job):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        return child.pid

    def kill_server(self, job):
        with open(job.params["flag"], "ab") as flag:
            flag.write(b"x")
            if flag.tell() > 1:
                return "again"
        os.kill(os.getppid(), signal.SIGKILL)
        return self.loop(job)

    def write(self, _job):
        os.write(1, b"from C\n")
        print("from Python")
        print("to stderr", file=sys.stderr)

    def write_much(self, _job):
        for _ in range(2000):
            os.write(1, b"x" * 999 + b"\n")
        return "done"

    def write_without_end(self, _job):
        while True:
            os.write(1, b"again\n" * 100)

    def return_lock(self, _job):
        return threading.Lock()

    def raise_odd(self, _job):
        class Odd(Exception):
            def __init__(self, a, b):
                super().__init__(f"{a} and {b}")
                self.lock = threading.Lock()

        raise Odd(1, 2)

    def draw(self, _job):
        import torch

        return float(torch.rand(1, dtype=torch.double))

    def use_loader(self, _job):
        import torch
        from torch.utils.data import DataLoader

        loader = DataLoader(torch.arange(8), num_workers=2, persistent_workers=True)
        return [sum(int(item) for item in loader) for _ in range(2)]

    def die_in_message(self, job):
        """End amid a message to the driver, whose socket a child in another session keeps open."""
        (socket,) = sockets()
        child = os.fork()
        if child == 0:
            os.setsid()
            time.sleep(600)
            os._exit(0)
        note(job.params["pids"], child)
        os.write(socket, (1 << 20).to_bytes(8, "big") + b"half")
        os._exit(3)

    def close_connection(self, _job):
        for socket in sockets():
            os.close(socket)

    def run_another_program(self, _job):
        os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)"])

    def move_to_another_group(self, job):
        other = os.fork()
        if other == 0:
            time.sleep(600)
            os._exit(0)
        os.setpgid(other, other)
        os.setpgid(0, other)
        note(job.params["pids"], other)
        return self.ignore_sigterm(job)

    def leave_daemon(self, job):
        """Leave a grandchild in a session that it has started, as daemons do."""
        child = os.fork()
        if child == 0:
            os.setsid()
            daemon = os.fork()
            if daemon:
                note(job.params["pids"], daemon)
            else:
                time.sleep(600)
            os._exit(0)
        os.waitpid(child, 0)

    def sigterm(self, _job):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(600)

    def note_and_loop(self, job):
        note(job.params["pids"], os.getpid())
        self.loop(job)

    def save_and_die(self, job):
        """End between the driver's word that the score leads and the arrival of the weights."""
        import torch

        class Deadly(torch.nn.Linear):
            def state_dict(self, *args, **kwargs):
                os._exit(3)

        job.save_best(Deadly(1, 1), job.params["score"])

    def save_large(self, job):
        """Return the CPU seconds of a copy of 100 MB of weights, and of their save."""
        import torch

        from junky_core.job.weights import copy_weights, state_of

        model = torch.nn.Linear(5000, 5000, bias=False)
        copy_weights(state_of(model), model)
        times = [time.thread_time()]
        copy_weights(state_of(model), model)
        times.append(time.thread_time())
        job.save_best(model, 0.5)
        times.append(time.thread_time())
        return times[1] - times[0], times[2] - times[1]

    def close_outputs(self, _job):
        os.close(1)
        os.close(2)

    def close_streams(self, _job):
        sys.stdout.close()
        sys.stderr.close()

    def redirect_output(self, job):
        with open(job.params["file"], "wb") as file:
            os.dup2(file.fileno(), 1)
        print("to the file")

    def run_commands(self, _job):
        os.system("echo from a shell")
        ctypes.CDLL(None).puts(b"from C, buffered")
        subprocess.run(["echo", "from a command"], check=True)

    def write_bytes(self, _job):
        os.write(1, bytes(range(256)) + b"\n")

    def write_long_line(self, _job):
        data = b"x" * (3 << 20)
        while data:
            data = data[os.write(1, data) :]
        os.write(1, b"\n")

    def print_later(self, job):
        flags = job.params["flags"]

        def work():
            while not os.path.exists(flags[0]):
                time.sleep(0.01)
            print("from a thread of an earlier job")
            open(flags[1], "w").close()

        threading.Thread(target=work).start()

    def let_it_print(self, job):
        flags = job.params["flags"]
        open(flags[0], "w").close()
        while not os.path.exists(flags[1]):
            time.sleep(0.01)


def note(path, pid):
    """Write a process's number to a file, which is there only when it is complete."""
    part = Path(f"{path}.part")
    part.write_text(str(pid))
    part.rename(path)


def sockets():
    """Return this process's sockets: in a worker, its connection to the driver."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:"):
                found.append(int(descriptor))
        except OSError:  # the one that lists them
            continue
    return found


def is_gone(pid, within_s=2.0):
    """Whether the process ends in time; one that has ended and is not waited for yet is gone."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state in "ZX":
            return True
        time.sleep(0.01)
    return False


def compute(threads, answer):
    """Compute on several threads, and say with how many the worker began."""
    import torch

    began_with = torch.get_num_threads()
    torch.set_num_threads(threads)
    total = float(torch.ones(1 << 22).exp().log().sum())
    _answer(answer, [began_with, total])


def hash_texts(_given, answer):
    _answer(answer, [hash("one"), hash("two")])
