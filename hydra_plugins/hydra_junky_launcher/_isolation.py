"""Everything process-global that a Hydra job uses, made per job. All the tricks are here.

Hydra runs one job at a time in a process: its config, its logging, its folder
and its environment are the process's. Here many jobs run at once, each on the
thread of its slot. Hydra's own ``run_job`` does all the work, unchanged; what
it reads and writes is put under it per job, keyed by the job that the calling
thread works for (:func:`junky_core.job.scopes.current_scope`, so threads that a
job starts see what their job sees). Threads of no job see the process's own
state, as ever.

=======================  ==================================================  ======================
What is global           How each job gets its own                           Breaks if
=======================  ==================================================  ======================
Hydra's singletons       ``Singleton._instances`` is replaced by a mapping   Hydra keeps them
(``HydraConfig``,        with a layer for each job: a job finds copies of    elsewhere, or reads
``GlobalHydra``,         these four, which it may change                     ``HydraConfig`` past
``JobRuntime``,                                                              ``instance()``
``VersionBase``)
OmegaConf's resolvers    ``BaseContainer._resolvers``, the same way: a       OmegaConf keeps them
                         resolver that a job registers is its own            elsewhere
State of loggers         ``handlers``, ``level``, ``disabled``,              ``logging`` renames
                         ``propagate``, ``filters`` and the level cache of   these, or moves them
                         ``logging.Logger`` are descriptors with a layer     to C
                         for each job: ``configure_log`` in a job configures
                         that job alone, whatever ``hydra.job_logging`` says
Names of handlers,       ``logging._handlers`` has layers; handlers made in  ``logging`` renames
closing of handlers      a job are closed with it, and ``dictConfig`` in a   these
                         job closes that job's only
Working folder           ``unshare(CLONE_FS)`` in the slot's thread: Linux   (checked: falls back,
                         keeps one folder per thread then; threads it        or an error where it
                         starts later share it. The main thread is never     is needed)
                         unshared. Anew for each job, so that a thread which
                         outlives its job keeps the old folder
Environment              It cannot be made per thread (C code reads it).     Hydra sets it
                         ``hydra.job.env_set`` is set once round the sweep,  otherwise than by
                         and ``env_override`` in a job only marks when its   ``env_override``
                         task runs: before that, ``oc.env`` gives the job
                         what was there before the sweep, as Hydra would
``sys.stdout``,          Shared. What jobs leave behind by racing            -
``warnings.filters``     ``redirect_stdout`` or ``catch_warnings`` blocks is
                         put back after the sweep
=======================  ==================================================  ======================

A module that is imported while a job runs is the process's, so what its code
does to loggers and resolvers goes to the process too (and to that job).

All patches are in place only while a launch, or a job of it, is running; the
last to end takes them away. :func:`check_isolation` tries them out at the
start of each launch, against the Hydra, OmegaConf and Python that are there,
so that a version that keeps its state elsewhere gives an error, not mixed-up
jobs.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import functools
import inspect
import logging
import logging.config
import os
import sys
import tempfile
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import hydra
import hydra.core.utils as hydra_utils
import hydra.utils
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobRuntime
from omegaconf import OmegaConf
from omegaconf.basecontainer import BaseContainer

from hydra_plugins.hydra_junky_launcher._errors import HydraConfigError, HydraIsolationError
from hydra_plugins.hydra_junky_launcher._quick import copy_config, patches
from junky_core.errors import ConfigError
from junky_core.job.scopes import JobScope, current_scope, enter_scope

__all__ = [
    "JobState",
    "LaunchState",
    "check_isolation",
    "env_error",
    "folders_per_thread",
    "isolated_job",
    "isolated_launch",
    "private_log_config",
    "scratch_job",
]

FACET = "hydra"  # where a job's state hangs in its JobScope

_GONE = object()  # deleted in a job's layer, still there below it
_IMPORT_SYSTEM = "<frozen importlib._bootstrap"  # file name of the frames of an import
_LOGGER_STATE = ("_cache", "disabled", "filters", "handlers", "level", "propagate")


_LOGGER_COPIES: dict[str, Callable[[Any], Any]] = {  # of what is changed in place
    "_cache": lambda _value: {},
    "filters": list,
    "handlers": list,
}


class JobState:
    """What one job has instead of the process's own.

    Attributes:
        layers: By patched mapping, the job's own entries.
        loggers: By attribute, the job's own values for each logger.
        handlers: The handlers made in this job, closed with it.
        env: What ``hydra.job.env_set`` has set for all jobs of the launch.
        env_before: What those variables were before; ``None`` for unset.
        task_runs: Whether the job's task, not its preparation, is running.
    """

    __slots__ = (
        "__weakref__",
        "env",
        "env_before",
        "handlers",
        "layers",
        "loggers",
        "task_runs",
    )

    def __init__(
        self,
        env: Mapping[str, str] | None = None,
        env_before: Mapping[str, str | None] | None = None,
    ) -> None:
        self.layers: dict[Any, dict[Any, Any]] = {}
        self.loggers: dict[str, dict[Any, Any]] = {}
        self.handlers: list[logging.Handler] = []
        # A thread that outlives its job may log once more, which opens a closed file again.
        weakref.finalize(self, _close_handlers, self.handlers)
        self.env = env
        self.env_before = env_before
        self.task_runs = False

    def close_handlers(self) -> None:
        """Flush and close the handlers made in this job."""
        _close_handlers(self.handlers)


def _close_handlers(handlers: list[logging.Handler]) -> None:
    # Newest first; it shrugs off those already closed.
    logging.shutdown([weakref.ref(handler) for handler in handlers])


def _state() -> JobState | None:
    scope = current_scope()
    return None if scope is None else scope.facets.get(FACET)


def _importing() -> bool:
    """Tell whether the code that called is run by an import."""
    frame = sys._getframe(1)  # noqa: SLF001
    while frame is not None:
        if frame.f_code.co_filename.startswith(_IMPORT_SYSTEM):
            return True
        frame = cast(Any, frame.f_back)
    return False


class _Layered(MutableMapping[Any, Any]):
    """A process-wide mapping, with a layer in front of it for each job.

    Args:
        base: The process's own mapping; what threads of no job see and change.
        owned: Whether a job's change of this key stays with the job.
        copied: Makes a job's own copy of an owned value at its first look.
    """

    def __init__(
        self,
        base: Any,
        owned: Callable[[Any], bool] = lambda _key: True,
        copied: Callable[[Any], Any] | None = None,
    ) -> None:
        self.base = base
        self._owned = owned
        self._copied = copied

    __hash__ = object.__hash__  # it is a key of JobState.layers

    def __eq__(self, other: object) -> bool:
        return self is other

    def _layer(self) -> dict[Any, Any] | None:
        state = _state()
        return None if state is None else state.layers.setdefault(self, {})

    def __getitem__(self, key: Any) -> Any:
        layer = self._layer()
        if layer is None or not self._owned(key):
            return self.base[key]
        if key not in layer:
            if self._copied is None:
                return self.base[key]
            layer.setdefault(key, self._copied(self.base[key]))
        value = layer[key]
        if value is _GONE:
            raise KeyError(key)
        return value

    def __setitem__(self, key: Any, value: Any) -> None:
        layer = self._layer()
        if layer is None or not self._owned(key):
            self.base[key] = value
            return
        if _importing():
            self.base[key] = value
        layer[key] = value

    def __delitem__(self, key: Any) -> None:
        layer = self._layer()
        if layer is None or not self._owned(key):
            del self.base[key]
            return
        if key not in self:
            raise KeyError(key)
        layer[key] = _GONE

    def __contains__(self, key: object) -> bool:
        layer = self._layer()
        if layer is not None and key in layer and self._owned(key):
            return layer[key] is not _GONE
        return key in self.base

    def __iter__(self) -> Iterator[Any]:
        keys = dict.fromkeys(list(self.base))
        layer = self._layer()
        for key, value in list((layer or {}).items()):
            keys.pop(key, None) if value is _GONE else keys.setdefault(key)
        return iter(keys)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[Any, Any]:
        return {key: copy.deepcopy(self[key], memo) for key in self}  # Singleton.get_state


class _LayeredAttribute:
    """An attribute of loggers with a layer for each job in front of the instance's own value.

    Args:
        name: Its name.
        copied: Makes a job's own copy at its first look; for values changed in place.
    """

    def __init__(self, name: str, copied: Callable[[Any], Any] | None = None) -> None:
        self._name = name
        self._copied = copied

    def __get__(self, logger: Any, owner: Any = None) -> Any:
        if logger is None:
            return self
        state = _state()
        if state is not None:
            layer = state.loggers.get(self._name)
            if layer is None:
                layer = state.loggers.setdefault(self._name, {})
            if logger in layer:
                return layer[logger]
        try:
            value = logger.__dict__[self._name]
        except KeyError:
            raise AttributeError(self._name) from None
        if state is not None and self._copied is not None:
            return state.loggers[self._name].setdefault(logger, self._copied(value))
        return value

    def __set__(self, logger: Any, value: Any) -> None:
        state = _state()
        if state is None or self._name not in logger.__dict__:  # a new logger is everybody's
            logger.__dict__[self._name] = value
            return
        if logger.__dict__[self._name] is not value and _importing():
            logger.__dict__[self._name] = value
            _clear_process_caches()
        state.loggers.setdefault(self._name, {})[logger] = value

    def __delete__(self, logger: Any) -> None:
        logger.__dict__.pop(self._name, None)


def _clear_process_caches() -> None:
    """Forget, for threads of no job, which levels are enabled; ``setLevel`` did so for the job."""
    root = logging.getLogger()
    for logger in [root, *list(root.manager.loggerDict.values())]:
        vars(logger).get("_cache", {}).clear()


def _clear_cache(plain: Callable[[Any], None]) -> Callable[[Any], None]:
    def clear_cache(self: logging.Manager) -> None:
        state = _state()
        if state is None:
            plain(self)
            return
        for cache in list(state.loggers.get("_cache", {}).values()):  # others have none to clear
            cache.clear()

    return clear_cache


# --- The patches ---------------------------------------------------------------------------------

_SINGLETONS = {"GlobalHydra", "HydraConfig", "JobRuntime", "VersionBase"}
_lock = threading.RLock()  # guards _holders and the patches themselves
_holders = 0
_undo = contextlib.ExitStack()
_launching = threading.local()  # .handlers: made by private_log_config in this thread


@contextlib.contextmanager
def _patched() -> Iterator[None]:
    """Hold the patches in place: the first holder puts them in, the last takes them out."""
    global _holders
    with _lock:
        if _holders == 0:
            try:
                _install()
            except BaseException:
                _undo.close()
                raise
        _holders += 1
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if _holders == 0:
                _undo.close()


def _install() -> None:
    _replace(
        Singleton,
        "_instances",
        _Layered(Singleton._instances, _is_hydra_singleton, _copy_singleton),  # noqa: SLF001
    )
    _replace(BaseContainer, "_resolvers", _Layered(BaseContainer._resolvers))  # noqa: SLF001
    _replace(logging, "_handlers", _Layered(logging._handlers))  # type: ignore[attr-defined]  # noqa: SLF001
    _replace(logging, "_addHandlerRef", _note_handler(logging._addHandlerRef))  # type: ignore[attr-defined]  # noqa: SLF001
    _replace(
        logging.config,
        "_clearExistingHandlers",
        _clear_own_handlers(logging.config._clearExistingHandlers),  # type: ignore[attr-defined]  # noqa: SLF001
    )
    _replace(hydra_utils, "env_override", _mark_task(hydra_utils.env_override))
    for name in _LOGGER_STATE:
        attribute = _LayeredAttribute(name, _LOGGER_COPIES.get(name))
        _add_class_attribute(logging.Logger, name, attribute)
    _add_class_attribute(logging.Manager, "_disable", _LayeredAttribute("_disable"))
    _replace(logging.Manager, "_clear_cache", _clear_cache(logging.Manager._clear_cache))  # type: ignore[attr-defined]  # noqa: SLF001
    _replace(logging.Logger, "addHandler", _add_to_both(logging.Logger.addHandler))
    for holder, name, value in patches():
        _replace(holder, name, value)


def _replace(holder: Any, name: str, value: Any) -> None:
    before = getattr(holder, name)
    setattr(holder, name, value)

    def put_back() -> None:
        if getattr(holder, name) is value:  # else somebody wrapped or replaced it: theirs stays
            setattr(holder, name, before)

    _undo.callback(put_back)


def _add_class_attribute(holder: Any, name: str, value: Any) -> None:
    if name in vars(holder):
        raise HydraIsolationError(
            f"{holder.__name__}.{name} is no plain attribute in Python "
            f"{sys.version.split()[0]}: jobs cannot have their own; use hydra/launcher=basic"
        )
    setattr(holder, name, value)
    _undo.callback(delattr, holder, name)


def _is_hydra_singleton(key: Any) -> bool:
    return getattr(key, "__name__", "") in _SINGLETONS and key.__module__.startswith("hydra.")


def _copy_singleton(instance: Any) -> Any:
    own = copy.copy(instance)
    if isinstance(own, JobRuntime):
        own.conf = copy_config(own.conf)
    return own


def _note_handler(plain: Callable[[logging.Handler], None]) -> Callable[[logging.Handler], None]:
    def add_handler_ref(handler: logging.Handler) -> None:
        plain(handler)
        state = _state()
        if state is not None:
            if not _importing():
                state.handlers.append(handler)
        elif getattr(_launching, "handlers", None) is not None:
            _launching.handlers.append(weakref.ref(handler))

    return add_handler_ref


def _clear_own_handlers(plain: Callable[[], None]) -> Callable[[], None]:
    def clear_existing_handlers() -> None:
        state = _state()
        if state is not None:
            state.close_handlers()
            state.handlers.clear()
        elif getattr(_launching, "handlers", None) is None:
            plain()

    return clear_existing_handlers


def _add_to_both(plain: Callable[..., None]) -> Callable[..., None]:
    def add_handler(self: logging.Logger, hdlr: logging.Handler) -> None:
        plain(self, hdlr)
        if _state() is not None and _importing():
            handlers = self.__dict__["handlers"]
            if hdlr not in handlers:
                handlers.append(hdlr)

    return add_handler


def _mark_task(plain: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @contextlib.contextmanager
    def env_override(env: Any) -> Iterator[None]:
        state = _state()
        if state is None or state.env is None:  # one slot: the environment is this job's
            with plain(env):
                yield
            return
        wanted = {str(name): str(value) for name, value in env.items()}
        if wanted != dict(state.env):
            raise env_error(dict(state.env), wanted)
        state.task_runs = True
        try:
            yield
        finally:
            state.task_runs = False

    return env_override


def env_error(first: Mapping[str, str], other: Mapping[str, str], where: str = "") -> ConfigError:
    """Return the error that names the variables in which two jobs' ``env_set`` differ."""
    names = sorted(
        name for name in {*first, *other} if first.get(name, _GONE) != other.get(name, _GONE)
    )
    shown = "; ".join(f"{name}: {first.get(name)!r} and {other.get(name)!r}" for name in names)
    return HydraConfigError(
        f"hydra.job.env_set differs between jobs in {', '.join(names)} ({shown}){where}. "
        "A process has one environment, so jobs that run at the same time must share it: "
        "use one slot (hydra.launcher.devices=cpu) or hydra/launcher=basic"
    )


def _env_resolver(state: JobState, plain: Callable[..., Any]) -> Callable[..., Any]:
    """``oc.env`` for a job: while it is prepared, its variables are as before the sweep."""

    def resolve(root: Any, parent: Any, node: Any, args: Any, args_str: Any) -> Any:
        before = state.env_before or {}
        if state.task_runs or not args or args[0] not in before:
            return plain(root, parent, node, args, args_str)
        value = before[args[0]]
        if value is not None:
            return value
        if len(args) > 1:
            return None if args[1] is None else str(args[1])
        raise KeyError(f"Environment variable '{args[0]}' not found")

    return resolve


# --- A launch, and its jobs ----------------------------------------------------------------------


class LaunchState:
    """What the jobs of one launch share.

    Attributes:
        folder: The working folder of the process, where each job begins.
        own_folders: Whether each job has a working folder of its own.
        env: What ``hydra.job.env_set`` has set for all jobs, ``None`` if each sets its own.
        env_before: What those variables were before.
    """

    def __init__(self, slots: int, env: Mapping[str, str] | None) -> None:
        self.slots = slots
        self.folder = str(Path.cwd())
        self.own_folders = folders_per_thread()
        self.env = env
        self.env_before = None if env is None else {name: os.environ.get(name) for name in env}


@contextlib.contextmanager
def isolated_launch(slots: int, env: Mapping[str, str] | None = None) -> Iterator[LaunchState]:
    """Give the jobs of a launch their own state, inside the ``with`` block; main thread.

    Args:
        slots: How many jobs may run at once.
        env: The environment variables that all jobs set; ``None`` if each job
            may set its own, which takes one slot.

    Raises:
        IsolationError: The Hydra, OmegaConf or Python that is installed keeps
            its state where the patches do not reach.
    """
    with _patched(), _process_as_it_was():
        check_isolation()
        launch = LaunchState(slots, env)
        os.environ.update(env or {})
        try:
            yield launch
        finally:
            for name, value in (launch.env_before or {}).items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


@contextlib.contextmanager
def isolated_job(launch: LaunchState) -> Iterator[JobState]:
    """Give the job that the calling thread works for its own state, inside the ``with`` block.

    Enter it in the slot's thread, within the job's scope, before anything of
    Hydra is called for the job and before the job starts a thread.
    """
    scope = current_scope()
    assert scope is not None
    with _patched():
        state = scope.facets[FACET] = JobState(launch.env, launch.env_before)
        if launch.env:
            plain = BaseContainer._resolvers["oc.env"]  # noqa: SLF001
            BaseContainer._resolvers["oc.env"] = _env_resolver(state, plain)  # noqa: SLF001
        own_folder = launch.own_folders and _unshare_folder()
        if own_folder:
            os.chdir(launch.folder)
            scope.work_setups.append(_in_this_folder)
        try:
            yield state
        finally:
            state.close_handlers()
            if own_folder or launch.slots == 1:
                os.chdir(launch.folder)


@contextlib.contextmanager
def scratch_job() -> Iterator[None]:
    """Let the calling thread look at a job's config as that job would, inside the ``with`` block.

    What it sets in Hydra meanwhile, ``HydraConfig`` say, is gone afterwards.
    """
    scope = JobScope(None)
    scope.facets[FACET] = JobState()
    with _patched(), enter_scope(scope):
        yield


@contextlib.contextmanager
def _process_as_it_was() -> Iterator[None]:
    """Undo what jobs leave behind by racing on blocks that are process-wide."""
    folder = str(Path.cwd())
    streams = sys.stdout, sys.stderr
    filters, showwarning = warnings.filters, warnings.showwarning
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if str(Path.cwd()) != folder:
                os.chdir(folder)
        sys.stdout, sys.stderr = streams
        # catch_warnings puts a new list in place and the old one back; an unpaired one is left.
        # What filterwarnings() changed inside the list, at the import of a module say, stays.
        if warnings.filters is not filters:
            warnings.filters = filters
            warnings.showwarning = showwarning
            getattr(warnings, "_filters_mutated", lambda: None)()


@contextlib.contextmanager
def private_log_config(configure: Callable[[], None]) -> Iterator[None]:
    """Log as ``configure`` sets it up inside the ``with`` block, for threads of no job.

    Afterwards the process's loggers are as they were. Handlers that were there
    before stay open, though ``dictConfig`` would have closed them.
    """
    with _patched():
        before = _logger_states()
        _launching.handlers = []
        try:
            configure()
        finally:
            made, _launching.handlers = _launching.handlers, None
        after = _logger_states()
        try:
            yield
        finally:
            for logger, now in _logger_states().items():
                for name, value in before.get(logger, {}).items():
                    # What others changed in the meantime is theirs, and stays.
                    if now[name] == after[logger][name] and now[name] != value:
                        _set_logger_state(logger, name, value)
            logging.shutdown(made)


def _logger_states() -> dict[logging.Logger, dict[str, Any]]:
    root = logging.getLogger()
    loggers = [root, *list(root.manager.loggerDict.values())]
    return {
        logger: {
            name: list(value) if isinstance(value, list) else value
            for name, value in vars(logger).items()
            if name in _LOGGER_STATE and name != "_cache"
        }
        for logger in loggers
        if isinstance(logger, logging.Logger)
    }


def _set_logger_state(logger: logging.Logger, name: str, value: Any) -> None:
    if name == "level":
        logger.setLevel(value)  # clears the caches
    elif isinstance(value, list):
        getattr(logger, name)[:] = value
    else:
        setattr(logger, name, value)


# --- Working folders -----------------------------------------------------------------------------

_CLONE_FS = 0x200  # linux/sched.h: folder, root and umask are shared between threads
_folders: bool | None = None  # guarded by _lock: what folders_per_thread() found


@functools.lru_cache(maxsize=1)
def _system_unshare() -> Callable[[int], int] | None:
    try:
        return cast("Callable[[int], int]", ctypes.CDLL(None, use_errno=True).unshare)
    except (OSError, AttributeError, TypeError):  # not Linux
        return None


def _unshare_folder() -> bool:
    """Give the calling thread, and threads it starts from now on, a folder of their own."""
    unshare = _system_unshare()
    return unshare is not None and unshare(_CLONE_FS) == 0


def _in_this_folder() -> Callable[[], contextlib.AbstractContextManager[None]]:
    """Return what puts a pool's thread into the folder that the calling thread is in now."""
    return functools.partial(_in_folder, str(Path.cwd()))


@contextlib.contextmanager
def _in_folder(folder: str) -> Iterator[None]:
    if _unshare_folder():  # else it would move the job that started the pool's thread
        os.chdir(folder)
    yield


def folders_per_thread() -> bool:
    """Tell whether a thread can have a working folder of its own here; tried out once.

    Linux can. Containers may forbid it, and some kernels' stand-ins say yes
    and do nothing.
    """
    global _folders
    with _lock:
        if _folders is None:
            folder = str(Path.cwd())
            elsewhere = next(p for p in (tempfile.gettempdir(), os.sep) if not _same(p, folder))
            seen: list[bool] = []

            def try_out() -> None:
                if _unshare_folder():
                    os.chdir(elsewhere)
                    seen.append(_same(str(Path.cwd()), elsewhere))

            thread = threading.Thread(target=try_out)
            thread.start()
            thread.join()
            _folders = seen == [True] and str(Path.cwd()) == folder
            if str(Path.cwd()) != folder:
                os.chdir(folder)
        return _folders


def _same(one: str, other: str) -> bool:
    with contextlib.suppress(OSError):
        return Path(one).samefile(other)
    return False


# --- The check -----------------------------------------------------------------------------------


def check_isolation() -> None:
    """Try the patches out: two jobs must not see each other, nor the process either.

    Raises:
        IsolationError: They do.
    """
    with _patched():
        wrong = [name for name, separate in _CHECKS.items() if not _holds(separate)]
    if wrong:
        versions = f"hydra-core {hydra.__version__}, Python {sys.version.split()[0]}"
        raise HydraIsolationError(
            f"jobs cannot be kept apart with {versions}: this version of the junky launcher does "
            f"not know where they keep {', '.join(wrong)}. Use hydra/launcher=basic, or a version "
            "of hydra-core that this one was made for (see its documentation)"
        )


def _holds(separate: Callable[[JobScope, JobScope], bool]) -> bool:
    scopes = JobScope(None), JobScope(None)
    for scope in scopes:
        scope.facets[FACET] = JobState()
    try:
        return separate(*scopes)
    except Exception:  # noqa: BLE001  # whatever a future version does about it, it does not hold
        return False


def _configs_are_separate(first: JobScope, second: JobScope) -> bool:
    before = HydraConfig.instance().cfg
    late = OmegaConf.create({"cwd": "${hydra:runtime.cwd}"})
    for scope, cwd in (first, "/first"), (second, "/second"):
        with enter_scope(scope):
            node = OmegaConf.create({"runtime": {"cwd": cwd}})
            HydraConfig.instance().cfg = cast(Any, SimpleNamespace(hydra=node))
    found = []
    for scope in (first, second):
        with enter_scope(scope):
            found.append((hydra.utils.get_original_cwd(), late.cwd))
    separate = found == [("/first", "/first"), ("/second", "/second")]
    return separate and HydraConfig.instance().cfg is before


def _other_singletons_are_separate(first: JobScope, second: JobScope) -> bool:
    marks = ["isolation check 1", "isolation check 2"]  # no app has such a name
    names: list[Any] = []
    loaders: list[Any] = []
    for scope, name in zip((first, second), marks, strict=True):
        with enter_scope(scope):
            JobRuntime.instance().set("name", name)
            GlobalHydra.instance().hydra = cast(Any, name)
    for scope in (first, second):
        with enter_scope(scope):
            names.append(JobRuntime.instance().get("name"))
            loaders.append(GlobalHydra.instance().hydra)
    outside = (JobRuntime.instance().get("name"), GlobalHydra.instance().hydra)
    return names == loaders == marks and not {*outside} & {*marks}


def _resolvers_are_separate(first: JobScope, second: JobScope) -> bool:
    name = "junky_isolation_check"
    for scope, value in (first, 1), (second, 2):
        with enter_scope(scope):  # the function to register one has another name in OmegaConf 2.4
            BaseContainer._resolvers[name] = lambda *_args, value=value: value  # noqa: SLF001
    found = []
    for scope in (first, second):
        with enter_scope(scope):
            found.append(OmegaConf.create({"a": f"${{{name}:}}"}).a)
    return found == [1, 2] and not OmegaConf.has_resolver(name)


def _loggers_are_separate(first: JobScope, second: JobScope) -> bool:
    root = logging.getLogger()
    before = list(root.handlers), root.level, root.isEnabledFor(1)
    config = {
        "version": 1,
        "handlers": {"check": {"class": "logging.NullHandler"}},
        "root": {"level": 1, "handlers": ["check"]},
        "disable_existing_loggers": True,
    }
    with enter_scope(first):
        logging.config.dictConfig(copy.deepcopy(config))
        own = list(root.handlers)
        one = root.isEnabledFor(1) and [type(handler) for handler in own] == [logging.NullHandler]
    with enter_scope(second):
        two = (list(root.handlers), root.level, root.isEnabledFor(1)) == before
    return one and two and (list(root.handlers), root.level, root.isEnabledFor(1)) == before


def _run_job_is_known(_first: JobScope, _second: JobScope) -> bool:
    asked = {
        "task_function",
        "config",
        "job_dir_key",
        "job_subdir_key",
        "hydra_context",
        "configure_logging",
    }
    body = getattr(hydra_utils, "_run_job", hydra_utils.run_job)
    return set(inspect.signature(hydra_utils.run_job).parameters) == asked and {
        "HydraConfig",
        "chdir",
        "configure_log",
        "env_override",
    } <= set(body.__code__.co_names)


_CHECKS: dict[str, Callable[[JobScope, JobScope], bool]] = {
    "the config of a job (HydraConfig)": _configs_are_separate,
    "Hydra's other singletons": _other_singletons_are_separate,
    "the resolvers of OmegaConf": _resolvers_are_separate,
    "the state of loggers": _loggers_are_separate,
    "what run_job needs": _run_job_is_known,
}
