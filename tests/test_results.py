import copy
import pickle

from junky_core.jobs import JobResult
from junky_core.views.results import AutotrainResult

STATS = [("Thread-1_0", 0.5, {"a": "<b>"}, None), ("Thread-2_0", 0.4, {"a": 2}, [1])]
FAILED = JobResult(2, "Thread-1_1", {"a": 3}, "failed", error="ValueError: bad")


def result(**more):
    return AutotrainResult(
        best_model=None,
        best_model_name="Thread-1_0",
        best_model_score=0.5,
        best_model_params={"a": "<b>"},
        stats=STATS,
        failed=[FAILED],
        **more,
    )


def test_is_a_tuple_of_five():
    five = (None, "Thread-1_0", 0.5, {"a": "<b>"}, STATS)
    assert result() == five
    assert tuple(result()) == five
    _, name, _, _, stats = result()
    assert (name, stats[0][1]) == ("Thread-1_0", 0.5)


def test_failed_jobs_are_an_attribute():
    assert result().failed == (FAILED,)


def test_repr_is_a_table():
    text = repr(result())
    assert "best Thread-1_0 with score 0.5" in text
    assert "job 2 (a=3), 1 attempt: ValueError: bad" in text


def test_repr_shows_job_numbers_where_they_are_known():
    jobs = [JobResult(7, "Thread-1_0", {"a": 1}, "finished", 0.5, duration_s=2.0, slot=1)]
    assert "  7" in repr(result(jobs=jobs))


def test_html_is_escaped():
    page = result()._repr_html_()
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert "ValueError: bad" in page


def test_the_log_parser_ignores_it(tmp_path):
    assert "Thread-1_0: " not in repr(result())


def test_survives_pickle_and_copy():
    for twin in (pickle.loads(pickle.dumps(result())), copy.copy(result())):
        assert twin == result()
        assert twin.failed == (FAILED,)


def test_without_a_best():
    empty = AutotrainResult(
        best_model=None,
        best_model_name=None,
        best_model_score=None,
        best_model_params=None,
        stats=[],
    )
    assert "no best model" in repr(empty)
    assert "<table>" in empty._repr_html_()
