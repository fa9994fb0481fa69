"""Worker processes of loaders, and data that jobs share, end with the sweep, however it ends."""

import gc
import multiprocessing
import sys
import threading
import weakref

import pytest
import torch
from torch.utils.data import DataLoader

from junky_core.autotrain import torch_autotrain
from junky_core.errors import SweepFailed, SweepInterrupted
from junky_core.job.standalone import current_job

WORKERS = 2
JOBS = 6


def make_loader(data_size=4):
    return DataLoader(torch.arange(data_size), 2, num_workers=WORKERS, persistent_workers=True)


def sweep(tmp_path, train, create_loaders=None, **more):
    return torch_autotrain(
        lambda job: (torch.nn.Linear(2, 1), job),
        train,
        create_loaders,
        make_model_fit_params=[("job", range(JOBS))],
        devices={"cpu": 2},
        sweep_dir=tmp_path,
        **{"max_retries": 0, "progress": False, **more},
    )


def check_that_none_is_left(running):
    assert WORKERS <= max(running) <= 2 * WORKERS  # one set of loaders on each slot
    assert multiprocessing.active_children() == []


def fail(job):
    raise ValueError(f"bad {job}")


def interrupt(job):
    if job == 2:
        raise KeyboardInterrupt


ENDS = {  # what jobs do -> how the sweep ends
    "finish": (lambda job: None, None),
    "fail": (fail, SweepFailed),
    "exit": (lambda job: sys.exit(job), SweepFailed),
    "Ctrl-C": (interrupt, SweepInterrupted),
}


@pytest.mark.parametrize("of_the_sweep", [False, True], ids=["loaders()", "create_loaders"])
@pytest.mark.parametrize("end", ENDS)
def test_workers_end_with_the_sweep(tmp_path, end, of_the_sweep):
    running = []
    then, error = ENDS[end]

    def train(device, loaders, model, job, save_best, log_prefix):
        loader = loaders if of_the_sweep else current_job().loaders(make_loader)
        assert sum(len(batch) for batch in loader) == 4
        running.append(len(multiprocessing.active_children()))
        save_best(model, 1.0)
        then(job)

    create = make_loader if of_the_sweep else None
    if error is None:
        sweep(tmp_path, train, create)
    else:
        with pytest.raises(error):
            sweep(tmp_path, train, create)
    check_that_none_is_left(running)


def test_workers_end_even_if_a_thread_and_the_user_hold_the_loader(tmp_path):
    held, stop = [], threading.Event()

    def train(device, loaders, model, job, save_best, log_prefix):
        held.append(current_job().loaders(make_loader))
        assert sum(len(batch) for batch in held[-1]) == 4
        threads.append(threading.Thread(target=stop.wait, args=(60,), daemon=True))
        threads[-1].start()
        save_best(model, 1.0)

    threads = []
    sweep(tmp_path, train)
    assert multiprocessing.active_children() == []
    stop.set()
    for thread in threads:
        thread.join()


def test_loaders_that_are_dropped_leave_no_workers_during_the_sweep(tmp_path):
    running = []

    def train(device, loaders, model, job, save_best, log_prefix):
        loader = current_job().loaders(make_loader, 2 * job + 2)
        assert sum(len(batch) for batch in loader) == 2 * job + 2
        running.append(len(multiprocessing.active_children()))
        save_best(model, 1.0)

    sweep(tmp_path, train)
    assert max(running) <= 2 * 3 * WORKERS  # two slots; this set, and the two before
    assert multiprocessing.active_children() == []


def test_workers_that_a_factory_has_started_end_with_the_sweep(tmp_path):
    def make_started_loader():
        loader = make_loader()
        next(iter(loader))
        return loader

    def train(device, loaders, model, job, save_best, log_prefix):
        current_job().loaders(make_started_loader)
        save_best(model, 1.0)

    sweep(tmp_path, train)
    assert multiprocessing.active_children() == []


def test_loader_of_the_script_can_be_used_after_the_sweep(tmp_path):
    loader = make_loader()

    def train(device, loaders, model, job, save_best, log_prefix):
        assert sum(len(batch) for batch in current_job().loaders(lambda: [loader])[0]) == 4
        save_best(model, 1.0)

    torch_autotrain(
        lambda job: (torch.nn.Linear(2, 1), job),
        train,
        make_model_fit_params=[("job", [1])],
        sweep_dir=tmp_path,
    )
    assert [batch.tolist() for batch in loader] == [[0, 1], [2, 3]]
    assert len(multiprocessing.active_children()) == WORKERS
    loader._iterator._shutdown_workers()


def test_loader_that_a_job_returns_can_be_used_after_the_sweep(tmp_path):
    def train(device, loaders, model, job, save_best, log_prefix):
        assert sum(len(batch) for batch in loaders) == 4
        save_best(model, 1.0)
        return loaders

    result = sweep(tmp_path, train, make_loader)
    loader = result.stats[0][3]
    assert [batch.tolist() for batch in loader] == [[0, 1], [2, 3]]
    loader._iterator._shutdown_workers()


class Data:
    """What jobs share."""


def test_shared_data_end_with_the_sweep_even_if_a_thread_continues(tmp_path):
    data, stop, threads = [], threading.Event(), []

    def train(device, loaders, model, job, save_best, log_prefix):
        data.append(weakref.ref(current_job().shared(Data)))
        threads.append(threading.Thread(target=stop.wait, args=(60,), daemon=True))
        threads[-1].start()
        save_best(model, 1.0)

    sweep(tmp_path, train)
    gc.collect()
    assert {ref() for ref in data} == {None}
    stop.set()
    for thread in threads:
        thread.join()


def test_a_thread_that_outlives_its_job_gets_its_own_loaders(tmp_path):
    go_on, late = threading.Event(), []

    def ask(job):
        assert go_on.wait(60)
        late.append(job.loaders(make_loader))

    def train(device, loaders, model, job, save_best, log_prefix):
        loader = current_job().loaders(make_loader)
        if job == 0:
            threads.append(threading.Thread(target=ask, args=(current_job(),)))
            threads[0].start()
        else:
            go_on.set()
            threads[0].join()
            assert late[0] is not loader
        save_best(model, 1.0)

    threads = []
    torch_autotrain(
        lambda job: (torch.nn.Linear(2, 1), job),
        train,
        make_model_fit_params=[("job", [0, 1])],
        sweep_dir=tmp_path,
        max_retries=0,
    )
    assert len(late) == 1
