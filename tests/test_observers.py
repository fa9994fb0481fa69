"""The project's own observers fulfil the observers' contract."""

from observer_contract import ObserverContract

from junky_core.logs.text_log import FileWriter, SweepLog
from junky_core.views.progress import Progress


class TestSweepLog(ObserverContract):
    def make(self, tmp_path):
        return SweepLog(FileWriter(tmp_path / "autotrain.log"))


class TestProgress(ObserverContract):
    def make(self, tmp_path):
        return Progress(True, plain=True)
