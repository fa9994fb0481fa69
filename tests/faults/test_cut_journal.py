"""A journal cut anywhere in its last record: only the missing job runs again."""

import json
import shutil

import torch
from sizes import LONG

from junky_core.autotrain import torch_autotrain
from junky_core.record.reader import load_state


def make_model(a):
    return torch.nn.Linear(2, 1), a


def test_cut_in_the_last_job_finished(tmp_path):
    ran = []

    def train(device, loaders, model, a, save_best, log_prefix):
        ran.append(a)
        save_best(model, a / 10)
        return a

    def run(folder, resume):
        ran.clear()
        return torch_autotrain(
            make_model,
            train,
            make_model_fit_params=[("a", [3, 1, 2])],
            sweep_dir=folder,
            resume=resume,
            threads_per_slot=1,
        )

    whole_result = run(tmp_path / "whole", False)
    lines = (tmp_path / "whole" / "journal.jsonl").read_bytes().splitlines(keepends=True)
    last = max(i for i, line in enumerate(lines) if b'"job_finished"' in line)
    before, record = b"".join(lines[:last]), lines[last]
    a = json.loads(record)["params"]["a"]
    end = len(record) + 1
    for cut in range(end) if LONG else (0, 1, end // 2, *range(end - 5, end)):
        folder = tmp_path / "cut"
        shutil.copytree(tmp_path / "whole", folder)
        (folder / "journal.jsonl").write_bytes(before + record[:cut])
        result = run(folder, True)
        assert ran == ([] if cut >= len(record) - 1 else [a]), cut
        assert [row[1:] for row in result.stats] == [row[1:] for row in whole_result.stats]
        assert result.best_model_params == {"a": 3}
        state = load_state(folder)
        assert [job.finished_times for job in state.by_num.values()] == [1, 1, 1]
        shutil.rmtree(folder)
