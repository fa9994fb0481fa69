"""The recorder gets events immediately; observers get them in order, in a separate thread."""

import threading

import pytest

from junky_core import torch_autotrain
from junky_core.engine.dispatcher import Dispatcher
from junky_core.events import Notice, ScoreReported


class Listener:
    """Records events, and in which thread they came."""

    def __init__(self):
        self.heard = []
        self.threads = set()

    def on_event(self, event):
        self.threads.add(threading.get_ident())
        self.heard.append(getattr(event, "message", event))


class Blocked(Listener):
    """Blocks in ``on_event`` until it is released."""

    def __init__(self):
        super().__init__()
        self.go, self.entered = threading.Event(), threading.Event()

    def on_event(self, event):
        self.thread = threading.current_thread()
        self.entered.set()
        assert self.go.wait(20)
        super().on_event(event)


class Broken(Listener):
    def on_event(self, event):
        super().on_event(event)
        raise ValueError("broken")


def notice(message):
    return Notice(level="info", message=message)


def test_observers_get_events_in_order_in_one_separate_thread():
    listeners = [Listener(), Listener()]
    dispatcher = Dispatcher(listeners)
    with dispatcher.running():
        for number in range(100):
            dispatcher.emit(notice(str(number)))
    for listener in listeners:
        assert listener.heard == [str(number) for number in range(100)]
        assert len(listener.threads) == 1
        assert threading.get_ident() not in listener.threads


def test_the_recorder_has_an_event_when_emit_returns():
    recorder, observer = Listener(), Blocked()
    dispatcher = Dispatcher([observer], recorder)
    with dispatcher.running():
        dispatcher.emit(notice("a"))
        assert recorder.heard == ["a"]
        assert recorder.threads == {threading.get_ident()}
        assert observer.entered.wait(20)
        assert observer.heard == []
        observer.go.set()
    assert observer.heard == ["a"]


def test_outside_a_run_observers_get_events_immediately():
    listener = Listener()
    dispatcher = Dispatcher([listener])
    dispatcher.emit(notice("before"))
    with dispatcher.running():
        dispatcher.emit(notice("inside"))
    dispatcher.emit(notice("after"))
    assert listener.heard == ["before", "inside", "after"]


def test_a_second_run_may_follow():
    listener = Listener()
    dispatcher = Dispatcher([listener])
    for number in range(20):
        with dispatcher.running():
            dispatcher.emit(notice(str(number)))
    assert listener.heard == [str(number) for number in range(20)]


def test_events_of_many_threads_all_arrive():
    listener = Listener()
    dispatcher = Dispatcher([listener])
    barrier = threading.Barrier(8)

    def emit(worker):
        barrier.wait()
        for number in range(50):
            dispatcher.emit(notice(f"{worker}-{number}"))

    threads = [threading.Thread(target=emit, args=(worker,)) for worker in range(8)]
    with dispatcher.running():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(listener.heard) == sorted(f"{w}-{n}" for w in range(8) for n in range(50))
    for worker in range(8):  # those of one thread in its order
        own = [text for text in listener.heard if text.startswith(f"{worker}-")]
        assert own == [f"{worker}-{number}" for number in range(50)]


@pytest.mark.parametrize("inside", [True, False])
def test_one_that_raises_is_reported_once_and_the_others_get_all_events(inside):
    broken, listener = Broken(), Listener()
    dispatcher = Dispatcher([broken, listener])
    if inside:
        with dispatcher.running():
            dispatcher.emit(notice("a"))
            dispatcher.emit(notice("b"))
    else:
        dispatcher.emit(notice("a"))
        dispatcher.emit(notice("b"))
    assert [text for text in listener.heard if len(text) == 1] == ["a", "b"]
    (report,) = [text for text in listener.heard if len(text) > 1]
    assert "Broken failed and is not reported again: ValueError: broken" in report


def test_a_recorder_that_raises_is_reported_to_the_observers():
    listener = Listener()
    dispatcher = Dispatcher([listener], Broken())
    dispatcher.emit(notice("a"))
    assert "Broken failed" in listener.heard[0] + listener.heard[1]
    assert "a" in listener.heard


def test_one_that_hangs_does_not_delay_the_end_of_an_interrupted_sweep(monkeypatch):
    monkeypatch.setattr("junky_core.engine.dispatcher._PATIENCE_S", 0.1)
    blocked = Blocked()
    dispatcher = Dispatcher([blocked])
    with dispatcher.running(hurry=lambda: True):
        dispatcher.emit(notice("a"))
    dispatcher.emit(notice("b"))  # returns at once
    assert blocked.heard == []
    blocked.go.set()
    assert dispatcher.wait(20)
    assert blocked.heard == ["a", "b"]


def test_one_that_never_returns_is_dropped_and_the_others_get_all_events(monkeypatch):
    monkeypatch.setattr("junky_core.engine.dispatcher._STUCK_AFTER_S", 0.1)
    before, blocked, after = Listener(), Blocked(), Listener()
    dispatcher = Dispatcher([before, blocked, after])
    for batch in ("a", "b"):  # nor does the next batch wait for it
        with dispatcher.running():
            dispatcher.emit(notice(batch))
            dispatcher.emit(notice(batch * 2))
    blocked.go.set()
    blocked.thread.join(20)  # it returns now; the others do not get events twice
    dispatcher.emit(notice("c"))
    for listener in (before, after):
        assert [text for text in listener.heard if len(text) < 3] == ["a", "aa", "b", "bb", "c"]
        (dropped,) = [text for text in listener.heard if len(text) > 2]
        assert "Blocked has not returned from on_event(Notice)" in dropped
    assert "aa" not in blocked.heard


def test_save_best_does_not_wait_for_an_observer(tmp_path):
    import torch

    trained = threading.Event()
    in_time = []

    class Slow(Listener):
        def on_event(self, event):
            if isinstance(event, ScoreReported):
                in_time.append(trained.wait(20))
            super().on_event(event)

    def train(device, loaders, model, save_best, log_prefix):
        for number in range(40):
            save_best(model, number)
        trained.set()

    slow = Slow()
    torch_autotrain(lambda: torch.nn.Linear(1, 1), train, sweep_dir=tmp_path, observers=[slow])
    assert in_time == [True] * 40
    assert sum(isinstance(event, ScoreReported) for event in slow.heard) == 40
