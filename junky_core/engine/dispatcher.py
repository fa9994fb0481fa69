"""Events on their way to those who listen.

The recorder (the journal) hears an event at once, in the thread in which it
happens: records must be written before the sweep continues. Observers
hear it later, in order, in one thread of their own, so that no job waits for
a log, a progress display or a tracker.

    job's thread ──emit──> recorder
                     └───> queue ──dispatcher's thread──> observer, observer, ...

Between runs, with no thread at work, observers hear an event at once too.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from junky_core.events import Event, Notice, NoticeLevel, Observer
from junky_core.job.forks import OwnProcess, leave_if_forked
from junky_core.job.scopes import outside_scopes
from junky_core.values.user_text import class_name, error_line, is_ctrl_c

__all__ = ["Dispatcher"]

_GATHER_S = 0.005  # the thread lets events gather for so long, as waking it for each is slow
_WAIT_S = 0.2  # how late a thread that waits for observers may notice a signal
_STUCK_AFTER_S = 60.0  # how long one call of an observer may take
_PATIENCE_S = 3.0  # for observers that are slow when the sweep was interrupted


class Dispatcher:
    """Hands events to the recorder and to observers.

    ``emit`` may be called from any thread. An observer that raises is reported
    once and never harms the sweep. During a run, one that does not return from a
    call for a minute is dropped: it gets no more events; the others do.

    Args:
        observers: Called one after another, never two at the same time.
        recorder: Called by ``emit`` itself, from several threads at once.
    """

    def __init__(self, observers: Sequence[Observer], recorder: Observer | None = None) -> None:
        self._observers = tuple(observers)
        self._recorder = recorder
        self._own = OwnProcess()
        self._silenced: set[int] = set()  # observers whose failure was reported
        self._delivering = threading.RLock()  # held while observers are called
        self._changed = threading.Condition()  # guards all below, and _delivering being replaced
        self._queue: deque[tuple[Event, Sequence[Observer]]] = deque()
        self._call_now: tuple[Event, Observer, Sequence[Observer], float] | None = None
        self._running = False
        self._idle = False  # the thread waits for events
        self._busy = False
        self._thread: threading.Thread | None = None

    def emit(self, event: Event) -> None:
        """Tell the recorder now and the observers soon; do nothing in a forked child."""
        if not self._own:
            return
        if self._recorder is not None:
            self._call(self._recorder, event)
        with self._changed:
            if self._running:
                self._queue.append((event, self._observers))
                if self._idle:
                    self._changed.notify_all()
                running = True
            else:
                running = False
        if running:
            self._drop_stuck()
        else:
            self._deliver(event, self._observers)

    @contextlib.contextmanager
    def running(self, hurry: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Let observers work in a thread of their own inside the ``with`` block.

        All events are delivered when it ends, however long that takes; once
        ``hurry`` says so, those that are not delivered in a few seconds are
        left to the thread.
        """
        with self._changed:
            started, self._running = self._running, True
        if not started:  # else an observer still hangs since the run before
            self._start_thread()
        try:
            yield
        finally:
            if self._all_delivered(hurry):
                with self._changed:
                    self._running = False
                    self._changed.notify_all()
                assert self._thread is not None
                self._thread.join()

    def _all_delivered(self, hurry: Callable[[], bool]) -> bool:
        end: float | None = None
        while not self.wait(_WAIT_S):
            self._drop_stuck()
            if end is None and hurry():
                end = time.monotonic() + _PATIENCE_S
            if end is not None and time.monotonic() > end:
                return False
        return True

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until observers have heard all events so far; return whether they have.

        Args:
            timeout_s: How long at most. ``None``: as long as it takes.
        """
        end = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while self._queue or self._busy:
                if end is not None and time.monotonic() >= end:
                    return False
                self._changed.wait(_WAIT_S)  # bounded: signals must get to the main thread
        return True

    def _start_thread(self) -> None:
        self._thread = threading.Thread(target=self._work, name="junky-observers", daemon=True)
        with outside_scopes():
            self._thread.start()

    def _work(self) -> None:
        me = threading.current_thread()
        while self._wait_for_events(me):
            while (taken := self._take(me)) is not None:
                try:
                    self._deliver(*taken, me)
                finally:
                    with self._changed:
                        if self._thread is me:
                            self._busy = False
                            self._call_now = None
                            self._changed.notify_all()

    def _wait_for_events(self, me: threading.Thread) -> bool:
        """Wait until there are some; return ``False`` if there is nothing left for this thread."""
        with self._changed:
            if self._thread is not me:
                return False
            self._idle = True
            while not self._queue and self._running:
                self._changed.wait()
            self._idle = False
            more = bool(self._queue)
        if more:
            time.sleep(_GATHER_S)
        return more

    def _take(self, me: threading.Thread) -> tuple[Event, Sequence[Observer]] | None:
        """Return the next event, ``None`` if there is none, or another thread has taken over."""
        with self._changed:
            if self._thread is not me or not self._queue:
                return None
            self._busy = True
            return self._queue.popleft()

    def _deliver(
        self, event: Event, observers: Sequence[Observer], worker: threading.Thread | None = None
    ) -> None:
        with self._delivering:
            for place, observer in enumerate(observers):
                with self._changed:
                    if worker is not None and self._thread is not worker:
                        return  # an observer was dropped, and another thread has the rest
                    if not any(one is observer for one in self._observers):
                        continue
                    if worker is not None:
                        rest = observers[place + 1 :]
                        self._call_now = event, observer, rest, time.monotonic()
                self._call(observer, event)

    def _drop_stuck(self) -> None:
        """Drop the observer whose call has lasted too long, and continue with the others."""
        with self._changed:
            if self._call_now is None or threading.current_thread() is self._thread:
                return
            event, stuck, rest, since = self._call_now
            if time.monotonic() - since < _STUCK_AFTER_S:
                return
            self._observers = tuple(one for one in self._observers if one is not stuck)
            self._queue.appendleft((event, rest))
            self._call_now = None
            self._busy = False
            self._delivering = threading.RLock()  # the old one is held until the call returns
            self._start_thread()
        message = (
            f"{class_name(stuck)} has not returned from on_event({class_name(event)}) for "
            f"{_STUCK_AFTER_S:g} s: it hears no more events"
        )
        self.emit(Notice(level=NoticeLevel.ERROR, message=message))

    def _call(self, observer: Observer, event: Event) -> None:
        try:
            observer.on_event(event)
            leave_if_forked(self._own)
        except BaseException as error:
            leave_if_forked(self._own, error)
            if is_ctrl_c(error):
                raise
            if id(observer) in self._silenced:
                return
            self._silenced.add(id(observer))
            message = f"{class_name(observer)} failed and is not reported again: "
            self.emit(Notice(level=NoticeLevel.ERROR, message=message + error_line(error)))
