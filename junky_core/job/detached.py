"""What is kept of the exception that ended a job: all that it says, nothing that it holds.

``assert torch.isfinite(loss), loss`` holds a tensor in the exception's ``args``, an
``AttributeError`` the object that lacks the attribute, an exception group its
members with all of theirs. The results of a sweep hold one exception for each
failed job until the sweep ends, so they hold copies:

    of the exception           the copy has
    class                      the same; if the job defined it and it holds more than code and
                               plain data, one of the same name and base classes
    text, notes                the same
    traceback                  the same files, lines and names, in frames that hold nothing
    cause, context, members    copies of these
    args, attributes           plain data as it is; a stand-in for any other object,
                               which has that object's text if it is in ``args`` or a tensor

The exception itself is left as it is: others may hold it, another job may raise it again.
"""

from __future__ import annotations

import builtins
import contextlib
import datetime as dt
import decimal
import enum
import fractions
import pathlib
import sys
import traceback
import types
import uuid
from typing import Any

import torch

from junky_core.job.exception_links import (
    args_of,
    attributes_of,
    cause_of,
    chain,
    context_of,
    join,
    members_of,
    set_traceback,
    stand_in,
    traceback_of,
)
from junky_core.job.local_classes import holds_nothing, look_alike
from junky_core.values.user_text import NO_TEXT, class_name, error_line, is_ctrl_c, repr_of, str_of

__all__ = ["StandIn", "detached"]

_PLAIN = (
    *(type(None), bool, int, float, complex, str, type(...), type(NotImplemented)),
    *(dt.date, dt.datetime, dt.time, dt.timedelta, decimal.Decimal, fractions.Fraction, uuid.UUID),
    *(pathlib.PosixPath, pathlib.WindowsPath, pathlib.PurePosixPath, pathlib.PureWindowsPath),
    *(torch.device, torch.dtype, torch.Size, torch.layout),
)
_MAX_BYTES = 1 << 16
_MAX_ITEMS = 1000
_MAX_DEPTH = 8
_MAX_TEXT = 2000
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class that is not written in C
_Group: Any = getattr(builtins, "BaseExceptionGroup", None)  # Python 3.11


class StandIn:
    """Replaces an object of a job; has only the name of its class and its text.

    >>> StandIn("Tensor", "tensor(nan)")
    tensor(nan)
    """

    __slots__ = ("_repr", "_str", "class_name")

    def __init__(self, class_name: str, repr_: str, str_: str | None = None) -> None:
        self.class_name = class_name
        self._repr = repr_
        self._str = repr_ if str_ is None else str_

    def __repr__(self) -> str:
        return self._repr

    def __str__(self) -> str:
        return self._str

    def __dir__(self) -> list[str]:
        return []  # else tracebacks suggest its attributes for one that the object lacked

    def __reduce__(self) -> tuple[Any, ...]:
        return StandIn, (self.class_name, self._repr, self._str)


def detached(exception: BaseException) -> BaseException:
    """Return a copy of ``exception`` that holds nothing of the job which raised it.

    The copy has the exception's class. If its text would differ (because of a ``__str__``
    that reads an attribute), it has a subclass that gives the same text. If no copy can be
    made, it is a ``RuntimeError``.

    >>> kept = detached(AssertionError(torch.tensor(float("nan"))))
    >>> kept, isinstance(kept.args[0], torch.Tensor)
    (AssertionError(tensor(nan)), False)
    """
    return _Copier().copy(exception)


class _Copier:
    """Copies linked exceptions; one instance for each exception that ended an attempt."""

    def __init__(self) -> None:
        # By id, with the exception, so that no other gets that id; None while it is being copied.
        self._copies: dict[int, tuple[BaseException, BaseException | None]] = {}
        self._items_left = _MAX_ITEMS
        self._classes: dict[int, type[BaseException]] = {}  # by id of the exception's own

    def copy(self, exception: BaseException) -> BaseException:
        """Return a copy of ``exception``."""
        made = self._made_with_links(exception)
        for link, copied in self._copies.values():
            if copied is not None:  # else it was nested too deeply
                join(copied, self._known(cause_of(link)), self._known(context_of(link)), link)
        assert made is not None
        return made

    def _known(self, link: BaseException | None) -> BaseException | None:
        return None if link is None or id(link) not in self._copies else self._copies[id(link)][1]

    def _made_with_links(self, exception: BaseException) -> BaseException | None:
        for link in chain(exception):
            self._made(link)
        return self._made(exception)

    def _made(self, link: BaseException) -> BaseException | None:
        if id(link) not in self._copies:
            self._copies[id(link)] = link, None
            try:
                made = self._copied(link)
            except BaseException as error:
                if is_ctrl_c(error):
                    raise
                made = RuntimeError(error_line(link))
            set_traceback(made, stand_in(traceback_of(link)))
            self._copies[id(link)] = link, made
        return self._copies[id(link)][1]

    def _copied(self, exception: BaseException) -> BaseException:
        text = str_of(exception)
        if text is None:
            text = NO_TEXT
        args = tuple(self._plain(value, in_args=True) for value in args_of(exception))
        cls = self._class_of(exception)
        made = self._bare(exception, cls, args)
        if str_of(made) != text:
            made = self._bare(exception, _saying(cls, text), args)
        # Raises where its class leaves no way to look at it: then its text must do.
        traceback.format_exception(type(made), made, None)
        return made

    def _class_of(self, exception: BaseException) -> type[BaseException]:
        cls = type(exception)
        if id(cls) not in self._classes:
            self._classes[id(cls)] = cls if holds_nothing(cls, _PLAIN) else look_alike(cls)
        return self._classes[id(cls)]

    def _bare(
        self, exception: BaseException, cls: type[BaseException], args: tuple[Any, ...]
    ) -> BaseException:
        """Return a new exception of ``cls`` with ``args`` and the attributes of ``exception``."""
        members = [self._made(member) for member in members_of(exception)]
        if members:
            message: Any = vars(_Group)["message"].__get__(exception)
            made = _new(cls, message, [link or RuntimeError(NO_TEXT) for link in members])
        else:
            made = _new(cls, *args)
        vars(BaseException)["args"].__set__(made, args)
        for name, value in attributes_of(exception).items():
            attributes_of(made)[name] = self._plain(value)
        for base in type(exception).__mro__:
            if base not in BaseException.__mro__:
                self._copy_slots(base, exception, made)
        return made

    def _copy_slots(self, base: type, exception: BaseException, made: BaseException) -> None:
        """Copy what is not in ``__dict__``: fields of classes written in C, and ``__slots__``."""
        for slot in vars(base).values():
            if type(slot) in (types.MemberDescriptorType, types.GetSetDescriptorType):
                # Some have no value, some cannot be set, some take no stand-in.
                with contextlib.suppress(Exception):
                    value = slot.__get__(exception)
                    if base not in type(made).__mro__:  # a look-alike, which has no slots
                        attributes_of(made)[slot.__name__] = self._plain(value)
                    elif value is not slot.__get__(made):
                        slot.__set__(made, self._plain(value))

    def _plain(self, value: Any, depth: int = 0, *, in_args: bool = False) -> Any:
        """Return plain data as it is, and a stand-in for anything that may hold tensors."""
        kind = type(value)
        if kind in _PLAIN or _is_numpy_scalar(kind):
            return value
        if issubclass(kind, type) and holds_nothing(value, _PLAIN):
            return value
        if issubclass(kind, enum.Enum) and holds_nothing(kind, _PLAIN):
            return value
        if kind in (bytes, bytearray):
            return value[:_MAX_BYTES]
        if issubclass(kind, BaseException):
            made = self._made_with_links(value)
            return StandIn(class_name(value), error_line(value)) if made is None else made
        if kind in (tuple, list, set, frozenset, dict):
            self._items_left -= len(value)
            if depth < _MAX_DEPTH and self._items_left > 0:
                if kind is dict:
                    return {
                        self._plain(key, depth + 1, in_args=in_args): self._plain(
                            item, depth + 1, in_args=in_args
                        )
                        for key, item in value.items()
                    }
                return kind(self._plain(item, depth + 1, in_args=in_args) for item in value)
        if issubclass(kind, torch.Tensor):
            return StandIn(class_name(value), _short(repr_of(value)))
        if in_args:
            text = str_of(value)
            return StandIn(class_name(value), _short(repr_of(value)), text and _short(text))
        return StandIn(class_name(value), f"<{class_name(value)} object>")


def _new(cls: type[BaseException], *args: Any) -> BaseException:
    """Return a new instance without calling what the class itself has for that."""
    base = next(base for base in cls.__mro__ if not base.__flags__ & _HEAP_TYPE)
    made: BaseException = base.__new__(cls, *args)
    return made


def _saying(cls: type[BaseException], text: str) -> type[BaseException]:
    """Return a subclass of ``cls``, by the same name, whose instances say ``text``."""

    def __str__(_self: BaseException) -> str:  # noqa: N807
        return text

    def __reduce__(self: BaseException) -> tuple[Any, ...]:  # noqa: N807
        return _said_again, (cls, text, args_of(self), attributes_of(self))

    names = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__reduce__": __reduce__,
        "__slots__": (),
        "__str__": __str__,
    }
    subclass: Any = type(cls)  # its metaclass
    made: type[BaseException] = subclass(cls.__name__, (cls,), names)
    return made


def _said_again(
    cls: type[BaseException], text: str, args: tuple[Any, ...], attributes: dict[str, Any]
) -> BaseException:
    """Rebuild a copy that was pickled."""
    made = _new(_saying(cls, text), *args)
    attributes_of(made).update(attributes)
    return made


def _is_numpy_scalar(kind: type) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and issubclass(kind, (numpy.number, numpy.bool_))


def _short(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "..."
