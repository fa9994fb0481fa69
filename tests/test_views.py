"""Each view fulfils the views' contract."""

import io

from rich.console import Console
from view_contract import EVIL, ViewContract, raw

from junky_core.record.live_state import LiveState
from junky_core.views.leaderboard import leaderboard_text, write_leaderboard_csv
from junky_core.views.live_view import plain_line, render
from junky_core.views.report import report_html
from junky_core.views.results import AutotrainResult


def test_raw_finds_control_characters():
    assert len(raw(EVIL)) == 7


class TestLeaderboard(ViewContract):
    def show(self, state, tmp_path):
        return leaderboard_text(state.results(), state.direction)


class TestLeaderboardFile(ViewContract):
    def show(self, state, tmp_path):
        path = tmp_path / "leaderboard.csv"
        write_leaderboard_csv(path, state.results(), state.direction)
        return path.read_bytes().decode().replace("\r\n", "\n")


class TestResult(ViewContract):
    def show(self, state, tmp_path):
        return repr(AutotrainResult.of(state.results(), None, state.direction))


class TestResultInANotebook(ViewContract):
    def show(self, state, tmp_path):
        return AutotrainResult.of(state.results(), None, state.direction)._repr_html_()


class TestDisplay(ViewContract):
    state = LiveState

    def show(self, state, tmp_path):
        console = Console(file=io.StringIO(), width=200, color_system=None)
        console.print(render(state, 1005.0, 200))
        return console.file.getvalue()


class TestProgressLine(ViewContract):
    state = LiveState

    def show(self, state, tmp_path):
        return plain_line(state, 1005.0)


class TestReport(ViewContract):
    def show(self, state, tmp_path):
        page = report_html(state, EVIL)
        assert "\\u001b" not in page  # as JSON writes a control character
        return page
