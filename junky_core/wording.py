"""Words in messages that depend on a number."""

from __future__ import annotations

__all__ = ["count"]


def count(number: int, noun: str) -> str:
    """Return ``number`` and ``noun``, in the plural unless it is one.

    >>> count(1, "job"), count(0, "job"), count(2, "running job")
    ('1 job', '0 jobs', '2 running jobs')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"
