"""Fingerprints of the arguments that all jobs share, by which a resumed sweep detects changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from junky_core.values.identity import digest, fingerprint

__all__ = ["FixedArguments", "earlier_key", "fixed_arguments", "named_arguments"]


@dataclass(frozen=True, slots=True)
class FixedArguments:
    """Fixed arguments as they were when the sweep began.

    Attributes:
        values: The fingerprint of each value, by name (``train_kwargs['epochs']``).
        unknown: Names of the arguments that cannot be compared completely: they contain
            an object that has neither a value nor a name to import it by.
        names: The names of the keyword arguments, sorted.
        key: The digest of ``values``; recorded with each job.
    """

    values: Mapping[str, str] = field(default_factory=dict)
    unknown: Sequence[str] = ()
    names: Sequence[str] = ()
    key: str = ""

    def changes(self, before: Mapping[str, str]) -> list[str]:
        """Return the names of the arguments that differ from ``before``.

        >>> fixed_arguments(train_kwargs={"epochs": 100, "lr": 0.1}).changes(
        ...     fixed_arguments(train_kwargs={"epochs": 10, "lr": 0.1}).values)
        ["train_kwargs['epochs']"]
        """
        names = [*self.values, *(name for name in before if name not in self.values)]
        return [name for name in names if self.values.get(name) != before.get(name)]


def fixed_arguments(**arguments: Sequence[Any] | Mapping[str, Any]) -> FixedArguments:
    """Return the fingerprints of ``arguments``, each a sequence or a mapping of values.

    Call it before any job runs, because jobs may change their arguments.
    """
    names = [key for group in arguments.values() if isinstance(group, Mapping) for key in group]
    found = named_arguments(**arguments)
    prints = {name: fingerprint(value) for name, value in found.items()}
    known_by = {name: text for name, (text, _) in prints.items()}
    unknown = [name for name, (_, whole) in prints.items() if not whole]
    return FixedArguments(known_by, unknown, sorted(names), digest(known_by))


def named_arguments(**arguments: Sequence[Any] | Mapping[str, Any]) -> dict[str, Any]:
    """Return each value of ``arguments`` by the name that users know it by.

    >>> named_arguments(train_args=(5,), train_kwargs={"epochs": 10})
    {'train_args[0]': 5, "train_kwargs['epochs']": 10}
    """
    return {
        f"{group}[{place!r}]": value
        for group, values in arguments.items()
        for place, value in (values.items() if isinstance(values, Mapping) else enumerate(values))
    }


def earlier_key(params: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return a job's key in journals that do not record the values of fixed arguments.

    It was made of the job's parameters and of the names of the fixed keyword arguments.
    """
    return digest((dict(params), list(names)))
