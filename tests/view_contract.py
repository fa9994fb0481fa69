"""What every view must do: subclass :class:`ViewContract` and implement ``show``.

class TestMyView(ViewContract):
    def show(self, state, tmp_path):
        return my_view(state)
"""

import unicodedata

import pytest
from hostile import Hostile
from sweep_events import attempt_failed, begin, ended, fail, finish, score, started

from junky_core.events import SlotClosed
from junky_core.record.state import SweepState

EVIL = "a\x1b[2Jb\0c\rd\x9b31me\u202ef\x07g\x08"


class Evil:
    def __repr__(self):
        return EVIL


def raw(text, allowed="\n"):
    """Return the control characters in a text, including those that change its direction."""
    return {
        char
        for char in text
        if (unicodedata.category(char) == "Cc" and char not in allowed) or char == "\u202e"
    }


BEST, WORSE = 0.8125, 0.4375
SWEEPS = {
    "nothing": [],
    "no job": [started(0), ended()],
    "only started": [started(3)],
    "of unknown length": [started(None), begin(0), finish(0, BEST), begin(1)],
    "running": [started(3), begin(0), score(0, WORSE), begin(1, slot=2)],
    "interrupted": [started(3), begin(0), ended(reason="interrupted", left=3)],
    "killed and resumed": [
        *(started(3), begin(0), finish(0, BEST), begin(1)),
        *(started(2, resumed=True, already_finished=1), begin(1), finish(1, WORSE), ended()),
    ],
    "without a score": [started(1), begin(0), finish(0, None), ended(finished=1)],
    "scores that are not finite": [
        *(started(2), begin(0), finish(0, float("nan")), begin(1), finish(1, float("inf"))),
        ended(finished=2),
    ],
    "retried and failed": [
        *(started(1), begin(0), attempt_failed(0), begin(0, attempt=2, name="Thread-1_7")),
        *(attempt_failed(0, attempt=2, retry=False), fail(0, attempt=2), ended(failed=1)),
    ],
    "closed slot": [started(1), SlotClosed(slot=1, device="cpu", reason=""), ended(left=1)],
    "different parameters": [
        *(started(2), begin(0, params={}), finish(0, 1, params={})),
        *(begin(1, params={"a": None}), finish(1, 2, params={"a": None}), ended(finished=2)),
    ],
}


class ViewContract:
    """The contract: it shows any sweep as text that is safe to print, and does not change it."""

    state = SweepState  # a state that drops details will do for a view of a running sweep

    def show(self, state, tmp_path):
        """Return what the view shows of a state, as text."""
        raise NotImplementedError

    def after(self, events):
        """Return the state after these events."""
        state = self.state()
        for event in events:
            state.on_event(event)
        return state

    @pytest.mark.parametrize("events", SWEEPS.values(), ids=SWEEPS)
    def test_any_sweep(self, tmp_path, events):
        state = self.after(events)
        before = repr(vars(state))
        assert self.show(state, tmp_path).strip()
        assert repr(vars(state)) == before

    @pytest.mark.parametrize(
        ("direction", "best", "other"), [("maximize", BEST, WORSE), ("minimize", WORSE, BEST)]
    )
    def test_the_best_score_is_shown_first(self, tmp_path, direction, best, other):
        events = [started(2, direction=direction)]
        for num, value in enumerate([BEST, WORSE]):
            events += [begin(num), score(num, value), finish(num, value)]
        text = self.show(self.after([*events, ended(finished=2)]), tmp_path)
        assert str(best) in text
        assert str(other) not in text.partition(str(best))[0]

    def test_control_characters_are_escaped(self, tmp_path):
        params = {EVIL: EVIL, "b": Evil()}
        events = [
            started(5, devices=[EVIL, "cpu"]),
            begin(0, params=params, name=EVIL),
            finish(0, BEST, params=params, name=EVIL),
            begin(1, params={**params, EVIL: 2}, slot=2),
            fail(1, params={**params, EVIL: 2}, slot=2, error=f"{EVIL}\n{EVIL}"),
            begin(2, params=params, name=EVIL),
            SlotClosed(slot=3, device=EVIL, reason=EVIL),
        ]
        for reason in (None, EVIL):
            more = [] if reason is None else [ended(reason=reason)]
            assert not raw(self.show(self.after([*events, *more]), tmp_path))

    @pytest.mark.parametrize("error", [ValueError, SystemExit])
    def test_a_parameter_that_raises_on_any_access_is_shown(self, tmp_path, error):
        params = {"a": Hostile(error)}
        events = [started(2), begin(0, params=params), finish(0, BEST, params=params), begin(1)]
        assert str(BEST) in self.show(self.after(events), tmp_path)
