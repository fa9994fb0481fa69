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


def _answer(descriptor, value):
    os.write(descriptor, json.dumps(value).encode() + b"\n")


def tell_about_itself(given, answer):
    memory = {}
    with open("/proc/self/smaps_rollup") as rollup:
        for line in rollup:
            name, _, rest = line.partition(":")
            if rest.strip().endswith("kB"):
                memory[name] = int(rest.split()[0])
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
            "private_kb": memory["Private_Dirty"] + memory["Private_Clean"],
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
