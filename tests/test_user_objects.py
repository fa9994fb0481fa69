"""Objects of a user that raise on access affect only their own job."""

import threading

import pytest
import torch
from hostile import RAISED, Hostile, hostile_error, strange_exceptions

from junky_core.autotrain import torch_autotrain
from junky_core.errors import ModelLoadError, SweepFailed
from junky_core.record.reader import load_state

JOBS = 8
BAD = 3


def make_model(a):
    return torch.nn.Linear(2, 1), a


def run(folder, train, **options):
    options = {"make_model_fit_params": [("a", list(range(JOBS)))], **options}
    return torch_autotrain(
        make_model, train, devices={"cpu": 2}, sweep_dir=folder, max_retries=0, **options
    )


def statuses(folder):
    return [job.status for _num, job in sorted(load_state(folder).by_num.items())]


def failing(raise_it):
    def train(device, loaders, model, a, save_best, log_prefix):
        if a == BAD:
            raise_it()
        save_best(model, a / 10)

    return train


def check_only_that_job_failed(folder, train):
    result = run(folder, train)
    assert len(result.stats) == JOBS - 1
    assert [failed.num for failed in result.failed] == [BAD]
    assert [n for n, status in enumerate(statuses(folder)) if status != "finished"] == [BAD]
    assert repr(result)
    return result.failed[0]


@pytest.mark.parametrize("error", RAISED)
@pytest.mark.parametrize("base", [Exception, BaseException, RuntimeError, SystemExit, OSError])
def test_an_exception_that_raises_on_any_access_fails_only_its_job(tmp_path, base, error):
    def raise_it():
        raise hostile_error(error, base)

    failed = check_only_that_job_failed(tmp_path, failing(raise_it))
    assert failed.error.startswith("Error: ")
    assert "in raise_it" in failed.traceback
    assert str(failed.exception)


@pytest.mark.parametrize("make", strange_exceptions())
def test_a_strange_exception_fails_only_its_job(tmp_path, make):
    def raise_it():
        raise make()

    failed = check_only_that_job_failed(tmp_path, failing(raise_it))
    assert str(failed.exception)
    assert "in raise_it" in failed.traceback


@pytest.mark.parametrize("error", RAISED)
def test_a_returned_value_that_raises_on_any_access_is_harmless(tmp_path, error):
    value = Hostile(error)

    def train(device, loaders, model, a, save_best, log_prefix):
        save_best(model, a / 10)
        return value if a == BAD else a

    result = run(tmp_path, train)
    assert len(result.stats) == JOBS
    assert result.stats[JOBS - 1 - BAD][3] is value
    assert statuses(tmp_path) == ["finished"] * JOBS


@pytest.mark.parametrize("kind", [list, dict])
def test_an_endless_returned_container_is_left_out_of_the_journal(tmp_path, kind):
    class Endless(kind):
        def __iter__(self):
            while True:
                yield "x"

        def items(self):
            while True:
                yield "x", 1

    def train(device, loaders, model, a, save_best, log_prefix):
        save_best(model, a / 10)
        return Endless()

    run(tmp_path, train)
    assert statuses(tmp_path) == ["finished"] * JOBS


# In the main thread, which shows the results, a KeyboardInterrupt counts as Ctrl-C.
@pytest.mark.parametrize("error", [error for error in RAISED if error is not KeyboardInterrupt])
def test_a_parameter_that_begins_to_raise_is_harmless(tmp_path, error):
    class Quiet:
        """Behaves normally until it is switched."""

        hostile = False

        def __repr__(self):
            if Quiet.hostile:
                raise error("by the test")
            return "Quiet()"

        __str__ = __repr__

        def __eq__(self, other):
            self.__repr__()
            return self is other

        def __hash__(self):
            self.__repr__()
            return 1

    def train(device, loaders, model, a, save_best, log_prefix):
        Quiet.hostile = True
        save_best(model, 1.0)

    result = torch_autotrain(
        lambda a: (torch.nn.Linear(2, 1), a),
        train,
        make_model_fit_params=[("a", [Quiet() for _ in range(JOBS)])],
        devices={"cpu": 2},
        sweep_dir=tmp_path,
        max_retries=0,
    )
    assert len(result.stats) == JOBS
    assert statuses(tmp_path) == ["finished"] * JOBS
    assert repr(result)
    assert result._repr_html_()


@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_all_jobs_failing_with_a_parameter_that_raises_says_so(tmp_path, error):
    class Loud:
        hostile = False

        def __repr__(self):
            if Loud.hostile:
                raise error("by the test")
            return "Loud()"

    def train(device, loaders, model, a, save_best, log_prefix):
        Loud.hostile = True
        raise ArithmeticError("the job's own")

    with pytest.raises(SweepFailed, match="the job's own"):
        torch_autotrain(
            lambda a: (torch.nn.Linear(2, 1), a),
            train,
            make_model_fit_params=[("a", [Loud()])],
            devices="cpu",
            sweep_dir=tmp_path,
        )


@pytest.mark.parametrize("error", RAISED)
def test_score_that_raises_fails_its_job_alone(tmp_path, error):
    def train(device, loaders, model, a, save_best, log_prefix):
        save_best(model, Hostile(error) if a == BAD else a / 10)

    if error is KeyboardInterrupt:
        pytest.skip("raised by a job itself it ends the sweep, as Ctrl-C does")
    check_only_that_job_failed(tmp_path, train)


@pytest.mark.parametrize("error", [ValueError, SystemExit, GeneratorExit])
def test_model_that_raises_fails_its_job_alone(tmp_path, error):
    def train(device, loaders, model, a, save_best, log_prefix):
        save_best(Hostile(error) if a == BAD else model, a / 10)

    check_only_that_job_failed(tmp_path, train)


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_observer_that_raises_anything_is_named_once(tmp_path, capsys, error):
    class Broken:
        def on_event(self, event):
            if threading.current_thread() is not threading.main_thread():
                raise hostile_error(error)

    result = run(tmp_path, failing(lambda: None), observers=[Broken()])
    assert len(result.stats) == JOBS
    assert statuses(tmp_path) == ["finished"] * JOBS
    assert capsys.readouterr().out.count("Broken failed") == 1


@pytest.mark.parametrize("error", [ValueError, SystemExit, GeneratorExit])
def test_a_model_that_cannot_be_built_again_does_not_lose_the_result(tmp_path, error):
    main = threading.main_thread()

    def make(a):
        if threading.current_thread() is main:
            raise hostile_error(error, error)
        return make_model(a)

    with pytest.raises(ModelLoadError) as caught:
        torch_autotrain(
            make,
            failing(lambda: None),
            make_model_fit_params=[("a", [1, 2])],
            devices="cpu",
            sweep_dir=tmp_path,
            best_model_device="cpu",
        )
    assert len(caught.value.result.stats) == 2
