"""Give each job its own logging: state of loggers, handlers, ``dictConfig``.

Private names of ``logging`` that have no public counterpart:

- ``_handlers``, the handlers by name: two jobs use the same names;
- ``_clearExistingHandlers``, with which ``dictConfig`` closes every handler there is;
- ``Logger._cache`` and ``Manager._disable``, from which a logger decides whether
  a level is enabled.

If ``logging`` renames one of them, :func:`loggers_are_separate` fails.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import logging
import logging.config
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from hydra.core.utils import configure_log

from hydra_plugins.hydra_junky_launcher._errors import HydraIsolationError
from hydra_plugins.hydra_junky_launcher._job_state import (
    LayeredAttribute,
    LayeredMapping,
    job_state,
)
from junky_core.job.first_imports import importing
from junky_core.job.patches import replaced
from junky_core.job.scopes import JobScope, enter_scope

if TYPE_CHECKING:
    from hydra.types import HydraContext
    from omegaconf import DictConfig

__all__ = [
    "close_handlers",
    "configure_hydra_log",
    "loggers_are_separate",
    "logging_per_job",
    "private_log_config",
]

# State of a logger, and how a job gets its own copy of what is changed in place.
LOGGER_STATE: dict[str, Callable[[Any], Any] | None] = {
    "_cache": lambda _value: {},
    "disabled": None,
    "filters": list,
    "handlers": list,
    "level": None,
    "propagate": None,
}

_configuring = threading.local()  # .handlers: made by private_log_config in this thread


@contextlib.contextmanager
def logging_per_job() -> Iterator[None]:
    """Let each job configure logging for itself alone, inside the ``with`` block."""
    names = LayeredMapping(logging._handlers)  # type: ignore[attr-defined]  # noqa: SLF001 - see above
    clear = logging.config._clearExistingHandlers  # type: ignore[attr-defined]  # noqa: SLF001 - see above
    attributes: list[tuple[type, str, Any]] = [(logging.Manager, "_disable", None)]
    attributes += [(logging.Logger, name, copied) for name, copied in LOGGER_STATE.items()]
    with contextlib.ExitStack() as stack:
        for owner, name, copied in attributes:
            if name in vars(owner):
                raise HydraIsolationError(
                    f"{owner.__name__}.{name} is not a plain attribute in Python "
                    f"{sys.version.split()[0]}, so each job cannot have its own; use "
                    "hydra/launcher=basic"
                )
            attribute = LayeredAttribute(name, copied, _clear_process_caches)
            stack.enter_context(replaced(owner, name, attribute))
        replacements: tuple[tuple[Any, str, Any], ...] = (
            (logging, "_handlers", names),
            (logging.config, "_clearExistingHandlers", _clear_own_handlers(clear)),
            (logging.Handler, "__init__", _note_handler(logging.Handler.__init__)),
            (logging.Logger, "addHandler", _add_to_both(logging.Logger.addHandler)),
        )
        for owner, name, new in replacements:
            stack.enter_context(replaced(owner, name, new))
        yield


def close_handlers(handlers: list[logging.Handler]) -> None:
    """Flush and close handlers, the newest first; those closed already are left alone."""
    logging.shutdown([weakref.ref(handler) for handler in handlers])


def _clear_process_caches() -> None:
    """Let threads of no job decide again which levels are enabled."""
    root = logging.getLogger()
    for logger in [root, *list(root.manager.loggerDict.values())]:
        vars(logger).get("_cache", {}).clear()


def _note_handler(plain: Callable[..., None]) -> Callable[..., None]:
    def init(self: logging.Handler, *args: Any, **kwargs: Any) -> None:
        plain(self, *args, **kwargs)
        state = job_state()
        if state is not None:
            if not importing():
                state.handlers.append(self)
        elif getattr(_configuring, "handlers", None) is not None:
            _configuring.handlers.append(weakref.ref(self))

    return init


def _clear_own_handlers(plain: Callable[[], None]) -> Callable[[], None]:
    def clear_existing_handlers() -> None:
        state = job_state()
        if state is not None:
            close_handlers(state.handlers)
            state.handlers.clear()
        elif getattr(_configuring, "handlers", None) is None:
            plain()

    return clear_existing_handlers


def _add_to_both(plain: Callable[..., None]) -> Callable[..., None]:
    def add_handler(self: logging.Logger, hdlr: logging.Handler) -> None:
        plain(self, hdlr)
        if job_state() is not None and importing():
            handlers = self.__dict__["handlers"]
            if hdlr not in handlers:
                handlers.append(hdlr)

    return add_handler


def configure_hydra_log(config: DictConfig, hydra_context: HydraContext) -> None:
    """Log as ``hydra.hydra_logging`` says, as Hydra's own launchers do before their jobs."""
    extra = {}
    if "execution_whitelist" in inspect.signature(configure_log).parameters:  # Hydra 1.4
        extra["execution_whitelist"] = hydra_context.execution_whitelist  # type: ignore[attr-defined]
    configure_log(config.hydra.hydra_logging, config.hydra.verbose, **extra)


@contextlib.contextmanager
def private_log_config(configure: Callable[[], None]) -> Iterator[None]:
    """Log as ``configure`` sets it up inside the ``with`` block, for threads of no job.

    Afterwards the process's loggers are as they were. Handlers that existed
    before stay open, though ``dictConfig`` would have closed them. Inside
    :func:`logging_per_job` only.
    """
    before = _logger_states()
    _configuring.handlers = []
    try:
        configure()
    finally:
        made, _configuring.handlers = _configuring.handlers, None
    after = _logger_states()
    try:
        yield
    finally:
        for logger, now in _logger_states().items():
            for name, value in before.get(logger, {}).items():
                # What other code changed since then stays as it is.
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
            if name in LOGGER_STATE and name != "_cache"
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


def loggers_are_separate(first: JobScope, second: JobScope) -> bool:
    """Return whether logging configured in one job changes neither another nor the process."""
    root = logging.getLogger()
    before = list(root.handlers), root.level, root.isEnabledFor(1)
    config = {
        "version": 1,
        "handlers": {"check": {"class": "logging.NullHandler"}},
        "root": {"level": 1, "handlers": ["check"]},
        "disable_existing_loggers": True,
    }
    with enter_scope(first):
        logging.disable(logging.NOTSET)  # a script may have disabled logging
        root.disabled = False
        logging.config.dictConfig(copy.deepcopy(config))
        own = list(root.handlers)
        one = root.isEnabledFor(1) and [type(handler) for handler in own] == [logging.NullHandler]
    with enter_scope(second):
        two = (list(root.handlers), root.level, root.isEnabledFor(1)) == before
    return one and two and (list(root.handlers), root.level, root.isEnabledFor(1)) == before
