"""What the sweeps of tests run on worker processes, found there by name."""

import os
import threading
from pathlib import Path

import torch


def make(width=1, **_others):
    model = torch.nn.Linear(width, 1)
    torch.nn.init.constant_(model.weight, width)
    return model


def pid(_device, _loaders, model, save_best, _prefix):
    save_best(model, model.in_features)
    return os.getpid()


def note(_device, _loaders, model, save_best, _prefix, file):
    with Path(file).open("a") as notes:
        notes.write(f"{model.in_features}\n")
    save_best(model, model.in_features)


def loop(_device, _loaders, _model, _save_best, _prefix):
    sum(iter(int, 1))


def pid_of_loaders():
    return os.getpid()


def same_process(_device, loaders, _model, _save_best, _prefix):
    return loaders == os.getpid()


def broken_loaders():
    raise OSError("no such disk")


def return_lock(_device, _loaders, _model, _save_best, _prefix):
    return threading.Lock()


class Unloadable:
    """Can be pickled, and not loaded again."""

    def __reduce__(self):
        return (int, ("no number",))


def return_unloadable(_device, _loaders, _model, _save_best, _prefix):
    return Unloadable()


class LoadableHere:
    """Can be loaded in the process that pickles it alone."""

    def __reduce__(self):
        return _load_in, (os.getpid(),)


def _load_in(pid):
    if os.getpid() != pid:
        raise LookupError("not in this process")
    return LoadableHere()
