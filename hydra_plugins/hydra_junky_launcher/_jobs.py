"""The jobs of a launch: parameters, config and identity of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.hydra_junky_launcher._compose import JobComposer
from hydra_plugins.hydra_junky_launcher._job_config import JobPayload
from junky_core.jobs import Job
from junky_core.values.identity import digest

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader

__all__ = ["hydra_jobs", "task_digest"]


def hydra_jobs(
    job_overrides: Sequence[Sequence[str]],
    first_num: int,
    composer: JobComposer,
    config_loader: ConfigLoader,
    *,
    keep_config: bool,
) -> Iterator[Job]:
    """Yield the jobs of a launch, one by one as slots become free.

    A job's identity is its composed config, so that the order of its overrides does
    not matter. That is why it is composed here.

    Args:
        job_overrides: The overrides of each job; ``params_of(place)``, if there is such
            a method, gives a job's parameters.
        first_num: The number of the first job.
        composer: Composes the jobs' configs.
        config_loader: Hydra's, to read overrides.
        keep_config: Whether a job keeps the config that it is composed to here.
    """
    params_of = getattr(job_overrides, "params_of", None)
    parser = OverridesParser.create(config_loader=config_loader)
    for place, overrides in enumerate(job_overrides):
        listed = list(overrides)
        params = params_of(place) if params_of is not None else _params(listed, parser)
        config = None
        try:
            config = composer.compose(listed)
            key = task_digest(config)
        except Exception:  # noqa: BLE001 - the job's attempt raises it again, and fails
            key = digest(listed)
        payload = JobPayload(listed, config if keep_config else None)
        yield Job(first_num + place, params, payload, key, {"overrides": listed})


def task_digest(config: DictConfig) -> str:
    """Return the identity of a job: its composed config, but for the ``hydra`` node."""
    content = {
        key: OmegaConf.to_container(value, resolve=False) if OmegaConf.is_config(value) else value
        for key, value in config.items_ex(resolve=False)  # interpolations as text
        if key != "hydra"
    }
    return digest(content)


def _params(overrides: list[str], parser: OverridesParser) -> Mapping[str, Any]:
    """Return a job's parameters, by their overrides' keys."""
    params: dict[str, Any] = {}
    for override in parser.parse_overrides(overrides):
        if override.key_or_group.partition(".")[0].partition("/")[0] == "hydra":
            continue
        key = override.key_or_group + (f"@{override.package}" if override.package else "")
        params[f"~{key}" if override.is_delete() else key] = override.value()
    return params
