"""How the jobs of a sweep ended, the best of them, and ``optimization_results.yaml``.

Our own launcher keeps results itself. For any other launcher they are read off
the ``JobReturn`` of each job.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from junky_core.files import write_atomically
from junky_core.job.failures import describe
from junky_core.jobs import Direction, JobResult, rank_key
from junky_core.values.texts import visible
from junky_core.values.user_text import is_ctrl_c, repr_of
from junky_core.values.wording import count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

__all__ = ["best_of", "failure_text", "result_of", "write_results"]

_SHOWN_FAILURES = 20


def result_of(returned: Any, num: int, params: Mapping[str, Any], attempts: int) -> JobResult:
    """Return the result of a job that a foreign launcher ran.

    The status is checked first, because Hydra raises when the value of a failed job
    is read. A returned number is the score; any other value gives no score.
    """
    status = getattr(returned, "status", JobStatus.UNKNOWN)
    if status == JobStatus.COMPLETED:
        value = returned.return_value
        return JobResult(
            num=num,
            name=f"#{num}",
            params=params,
            status="finished",
            score=_number(value),
            value=value,
            attempts=attempts,
        )
    error = _error_of(returned)
    failure = describe(error)
    failure.keep_whole(_folder_of(returned), f"job-{num}")
    return JobResult(
        num=num,
        name=f"#{num}",
        params=params,
        status="failed",
        attempts=attempts,
        error=failure.error.splitlines()[-1],
        traceback=failure.traceback,
        exception=error,
    )


def _folder_of(returned: Any) -> Path | None:
    config = getattr(returned, "hydra_cfg", None)
    return None if config is None else Path(str(config.hydra.runtime.output_dir))


def _error_of(returned: Any) -> BaseException:
    if not isinstance(returned, JobReturn):
        return RuntimeError(f"the launcher returned {repr_of(returned)} instead of a JobReturn")
    if returned.status != JobStatus.FAILED:
        return RuntimeError("the launcher returned it without a result")
    try:
        value = returned.return_value  # raises what the job raised
    except Exception as error:  # noqa: BLE001 - whatever the job raised
        return error
    return RuntimeError(f"it is marked as failed, with the value {repr_of(value)}")


def _number(value: Any) -> float | None:
    kind = type(value)
    if issubclass(kind, (bool, str, bytes)) or not hasattr(kind, "__float__"):
        return None
    try:
        return float(value)
    except BaseException as error:  # an array, a batch of numbers, anybody's __float__
        if is_ctrl_c(error):
            raise
        return None


def best_of(results: Iterable[JobResult], direction: Direction) -> JobResult | None:
    """Return the job with the best finite score, the lower number at a tie, or ``None``."""
    best = min(
        results, key=lambda result: rank_key(result.score, result.num, direction), default=None
    )
    if best is None or rank_key(best.score, best.num, direction)[0] != 0:
        return None
    return best


def write_results(
    path: Path,
    *,
    best: JobResult | None,
    overrides: Sequence[str],
    direction: Direction,
    failed: Sequence[JobResult],
    model_path: Path | None,
) -> None:
    """Write ``optimization_results.yaml``, replacing the old one in one step.

    Hydra's optimising sweepers write ``name``, the best parameters and the best
    value; the job's number, its overrides and the model are added.
    """
    content = {
        "name": "junky",
        "direction": str(direction),
        "best_evaluated_params": dict(best.params) if best else None,
        "best_evaluated_result": best.score if best else None,
        "best_overrides": list(overrides) if best else None,
        "best_job_num": best.num if best else None,
        "model_path": None if model_path is None else str(model_path),
        "failed_jobs": [result.num for result in failed],
    }
    # As data, not a config: interpolations in the parameters are written unresolved.
    text = OmegaConf.to_yaml(OmegaConf.create(content)).encode()
    write_atomically(path, lambda file: file.write(text))


def failure_text(
    failed: Sequence[JobResult], total: int, overrides_of: Callable[[JobResult], Sequence[str]]
) -> str:
    """Return which jobs failed, and why, one line for each job."""
    lines = [f"{len(failed)} of {count(total, 'job')} failed for good:"]
    lines.extend(
        visible(f"  #{result.num} ({' '.join(overrides_of(result))}): {result.error}")
        for result in failed[:_SHOWN_FAILURES]
    )
    if len(failed) > _SHOWN_FAILURES:
        lines.append(f"  ... and {len(failed) - _SHOWN_FAILURES} more")
    return "\n".join(lines)
