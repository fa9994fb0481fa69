"""The functions that a user gives to ``torch_autotrain``, as what an attempt does."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from junky_core.errors import ConfigError, FitParamsError, ModelError
from junky_core.executors.processes.main_globals import packed_globals
from junky_core.executors.processes.sending import check_loadable, packed
from junky_core.executors.slots import Slot
from junky_core.job.context import JobContext
from junky_core.job.failures import FatalJobError
from junky_core.job.weights import unwrapped
from junky_core.jobs import Attempt
from junky_core.space.fit_params import FitParams
from junky_core.values.calls import Call
from junky_core.values.fixed_arguments import FixedArguments, fixed_arguments, named_arguments
from junky_core.values.identity import copy_containers
from junky_core.values.user_text import dict_text, shown

__all__ = ["UserFunctions"]

_PLAIN = frozenset({bool, float, str, type(None)})  # have a repr(), and can be sent


class UserFunctions:
    """What an attempt of ``torch_autotrain`` runs, and how its best model is built again.

    Args are those of ``torch_autotrain``.

    Raises:
        ConfigError: One of them cannot be used.
    """

    def __init__(
        self,
        make_model: Callable[..., Any],
        train: Callable[..., Any],
        create_loaders: Callable[[], Any] | None,
        make_model_args: Sequence[Any],
        make_model_kwargs: Mapping[str, Any] | None,
        train_args: Sequence[Any],
        train_kwargs: Mapping[str, Any] | None,
    ) -> None:
        for name, method in (
            ("make_model_method", make_model),
            ("train_method", train),
            ("create_loaders_method", create_loaders),
        ):
            if not callable(method) and not (name == "create_loaders_method" and method is None):
                raise ConfigError(f"{name} must be callable, not {shown(method)}")
        self.make_model = make_model
        self.train = train
        self.create_loaders = create_loaders
        self.make_model_args = _positional("make_model_args", make_model_args)
        self.make_model_kwargs = _keywords("make_model_kwargs", make_model_kwargs)
        self.train_args = _positional("train_args", train_args)
        self.train_kwargs = _keywords("train_kwargs", train_kwargs)

    def check_grid(self, grid: FitParams) -> None:
        """Raise if jobs cannot be run with these fit params.

        Raises:
            ConfigError: There are too many, or one is also a fixed keyword argument.
            FitParamsError: The log cannot have a value.
        """
        if grid.size > sys.maxsize:
            many = shown(grid.size)
            raise ConfigError(f"make_model_fit_params spans {many} jobs: too many to count")
        for key, value in _values(grid):
            try:
                repr(value)
            except Exception as error:
                raise FitParamsError(
                    f"make_model_fit_params: a value of {shown(key)} cannot be written to log and "
                    f"journal, its repr() raises {type(error).__name__}: {shown(value)}"
                ) from error
        clash = sorted(set(grid.keys) & set(self.make_model_kwargs))
        if clash:
            raise ConfigError(
                f"{', '.join(clash)}: given in make_model_kwargs and varied in "
                "make_model_fit_params; it can stand in one of them"
            )

    def check_sending(self, grid: FitParams) -> None:
        """Raise if jobs cannot be sent to worker processes.

        Raises:
            ConfigError: Names what cannot be sent, and says what to do.
        """
        found_by_name: list[Any] = []
        methods = {
            "make_model_method": self.make_model,
            "train_method": self.train,
            "create_loaders_method": self.create_loaders,
        }
        for name, value in {**methods, **named_arguments(**self._arguments())}.items():
            packed(value, name, found_by_name)
        packed_globals(found_by_name)
        for key, value in _values(grid):
            if type(value) is not int:
                check_loadable(value, f"make_model_fit_params: value of {shown(key)}")

    def fixed(self) -> FixedArguments:
        """Return what all jobs share: to be asked before any of them runs."""
        return fixed_arguments(**self._arguments())

    def _arguments(self) -> dict[str, Any]:
        names = ("make_model_args", "make_model_kwargs", "train_args", "train_kwargs")
        return {name: getattr(self, name) for name in names}

    def open_slot(self, slot: Slot) -> None:
        """Build the slot's loaders, in its own thread."""
        if self.create_loaders is not None:
            slot.loader_sets.get(Call(self.create_loaders, (), {}), [], pin=True)

    def run(self, _attempt: Attempt, job: JobContext) -> Any:
        """Build a model for the job's parameters and train it."""
        loaders = () if self.create_loaders is None else job.loaders(self.create_loaders)
        model, *others = self.build(job.params)
        model.to(job.device)
        return self.train(
            job.device,
            loaders,
            model,
            *others,
            job.save_best,
            job.log_prefix,
            *self.train_args,
            **self.train_kwargs,
        )

    def keep(self, attempt: Attempt, exception: BaseException) -> None:
        """Do nothing: the exception was not kept."""

    def build(self, params: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return ``(model, *other_train_args)``."""
        made = self.make_model(*self.make_model_args, **self.make_model_kwargs, **params)
        parts = tuple(made) if isinstance(made, (tuple, list)) else (made,)
        if not parts or not isinstance(parts[0], torch.nn.Module):
            what = type(made).__name__
            if parts and parts[0] is not made:
                what += f" that begins with {type(parts[0]).__name__}"
            raise FatalJobError from ModelError(
                "make_model_method must return a torch.nn.Module, or a tuple that begins with "
                f"one; for {dict_text(params)} it returned a {what}"
            )
        return parts

    def load(self, path: Path, params: Mapping[str, Any], device: Any) -> torch.nn.Module:
        """Build the best model again and load its weights."""
        with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they were
            model: torch.nn.Module = self.build(dict(copy_containers(params)))[0]
        weights = torch.load(path, map_location="cpu", weights_only=True)
        unwrapped(model).load_state_dict(weights)
        return model.to(device).eval()


def _values(grid: FitParams) -> Iterator[tuple[str, Any]]:
    """Return each key with each of its values, but for those that cause no trouble."""
    pairs = grid.pairs(ranges=False)
    return ((key, value) for key, value in pairs if type(value) not in _PLAIN)


def _positional(name: str, values: Any) -> tuple[Any, ...]:
    if isinstance(values, (tuple, list)):
        return tuple(values)
    if values is None:
        return ()
    raise ConfigError(f"{name} must be a tuple, not {shown(values)}: write ({shown(values)},)")


def _keywords(name: str, values: Any) -> dict[str, Any]:
    if values is None:
        return {}
    if isinstance(values, Mapping) and all(isinstance(key, str) for key in values):
        return dict(values)
    raise ConfigError(f"{name} must be a dict with names as keys, not {shown(values)}")
