"""Random streams of one job, so that its result depends on its seed and nothing else.

torch's generators, Python's ``random`` and NumPy's global functions are
process-wide; jobs on threads would draw from one stream, in whatever order they
run. Here each job has streams of its own, and what its threads draw comes from
them. ``docs/reproducibility.md`` has the claim and its limits.

    _current     which streams the calling thread draws from
    _operators   torch's drawing operators, turned to those streams
    _globals     ``torch.manual_seed`` and kin, ``random``, ``numpy.random``, while a sweep runs
    _streams     ``JobStreams``: the streams themselves
    _loaders     ``LoaderState``: reused loaders start each job alike
    _caveats     what cannot be promised, as far as it can be seen

Imports run upwards in that list, ``_streams`` before ``_operators``.
"""

from junky_core.seeding._caveats import reproducibility_warnings
from junky_core.seeding._globals import installed_streams, loader_streams
from junky_core.seeding._loaders import LoaderState
from junky_core.seeding._streams import JobStreams, current_streams

__all__ = [
    "JobStreams",
    "LoaderState",
    "current_streams",
    "installed_streams",
    "loader_streams",
    "reproducibility_warnings",
]
