"""What every observer must do: subclass :class:`ObserverContract` and implement ``make``.

class TestMyTracker(ObserverContract):
    def make(self, tmp_path):
        return MyTracker(tmp_path)
"""

import pytest
import sweep_events as story

from junky_core.engine.dispatcher import Dispatcher
from junky_core.events import Notice, SlotClosed


class Heard:
    """A second observer, which records whether the first one failed."""

    def __init__(self):
        self.failures = []

    def on_event(self, event):
        if "is not reported again" in getattr(event, "message", ""):
            self.failures.append(event.message)


class ObserverContract:
    """The contract: it accepts every event of every kind of sweep, in any number of batches."""

    def make(self, tmp_path):
        raise NotImplementedError

    def hear(self, tmp_path, events):
        heard = Heard()
        observer = self.make(tmp_path)
        dispatcher = Dispatcher([observer, heard])
        with dispatcher.running():
            for event in events:
                dispatcher.emit(event)
        assert heard.failures == []
        for _ in range(2):  # closing twice is harmless
            getattr(observer, "close", lambda: None)()

    def test_a_whole_sweep(self, tmp_path):
        self.hear(tmp_path, story.big_sweep(50))

    def test_every_kind_of_event(self, tmp_path):
        self.hear(
            tmp_path,
            [
                story.started(total=None),
                story.begin(0),
                story.score(0, float("nan")),
                story.attempt_failed(0),
                story.begin(0, attempt=2, name="Thread-1_1"),
                story.fail(0),
                Notice(level="warning", message="look"),
                SlotClosed(slot=1, device="cpu", reason="gone"),
                story.ended(failed=1),
            ],
        )

    def test_several_batches(self, tmp_path):
        self.hear(tmp_path, [*story.big_sweep(5), *story.big_sweep(5)])

    @pytest.mark.parametrize("reason", ["interrupted", "timeout", "no_slots", "error"])
    def test_a_sweep_that_ends_early(self, tmp_path, reason):
        self.hear(tmp_path, [story.started(), story.begin(0), story.ended(reason=reason, left=3)])
