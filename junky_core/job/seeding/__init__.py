"""Random streams of one job, so that its result depends on its seed and nothing else.

torch's generators, Python's ``random`` and NumPy's global functions are
process-wide; jobs on threads would draw from one stream, in whatever order they
run. Here each job has its own streams, and its threads draw from them.
``docs/reproducibility.md`` describes what is guaranteed, and the limits.

    _current     which streams the calling thread draws from
    _kernels     what runs in place of an operator that draws
    _operators   torch's drawing operators, turned to those streams
    _generators  torch's default generators: ``torch.manual_seed``, ``get_rng_state`` and so on
    _cuda        ``torch.cuda``'s functions
    _globals     these, ``random`` and ``numpy.random``, while a sweep runs
    _streams     ``JobStreams``: the streams themselves
    _draws       ``FactoryDraws``: what a loader factory drew from its job's own streams
    _loaders     ``LoaderState``: reused loaders start each job alike
    _caveats     warnings of what makes results differ all the same

Each imports only from those above it.
"""

from junky_core.job.seeding._caveats import reproducibility_warnings
from junky_core.job.seeding._current import current_streams
from junky_core.job.seeding._draws import FactoryDraws
from junky_core.job.seeding._globals import installed_streams, look_at_operators
from junky_core.job.seeding._loaders import LoaderState
from junky_core.job.seeding._streams import JobStreams, loader_streams

__all__ = [
    "FactoryDraws",
    "JobStreams",
    "LoaderState",
    "current_streams",
    "installed_streams",
    "loader_streams",
    "look_at_operators",
    "reproducibility_warnings",
]
