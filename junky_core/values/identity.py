"""The one definition of "same value": for duplicates, and to recognise a job when resuming.

Two values are the same when they have the same type and the same content:

======================================  ====================================================
Value                                   Same when
======================================  ====================================================
``None``, ``bool``, ``int``, ``str``,   type and value are equal: ``1``, ``1.0``, ``True`` and
``bytes``, ``complex``                  ``"1"`` are four values
``float``                               equal; NaN is the same as NaN, ``-0.0`` is not ``0.0``
list, tuple, deque, and subclasses      same class, same items in the same order
mappings                                same class, same items in any order
set, frozenset                          same class, same items
``range``, dates, decimals, paths, ...  same class and same text
enum member                             same class, same name
NumPy array and scalar, torch tensor    same class, dtype, shape and content, on any device
torch and NumPy dtype, torch device     same text: ``cuda`` is not ``cuda:0``
dataclass                               same class, same fields (those that it compares)
function or class found by its name     same module and qualified name
lambda, closure, other local function   same module, code, closure values and defaults
bound method, ``functools.partial``     same function, same object or arguments
OmegaConf container                     same class and same content, interpolations resolved
anything else                           the same object
======================================  ====================================================

:func:`freeze` gives a hashable key for one process, :func:`digest` a text that is the same in
every process, whatever its hash seed. A value that contains an object of the last row cannot be
recognised in another process: its digest starts with ``~`` and differs from all others.

:func:`fingerprint` detects in another process that a value changed. It also covers the state of
torch modules and of objects whose class defines ``__eq__``. All other objects count only by their
class.

All functions are thread-safe, as long as no other thread changes the value.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import hashlib
import os
import pathlib
import sys
import uuid
from collections.abc import Generator, Hashable, Iterable, Mapping
from typing import Any

from junky_core.values.content import children, data, found_by_name, state_of
from junky_core.values.user_text import is_ctrl_c

__all__ = ["copy_containers", "digest", "fingerprint", "freeze", "key_of"]

# Made once a process; with the process id, since a forked child inherits it.
_NONCE = os.urandom(16)

_PLAIN = frozenset({bool, bytes, complex, float, int, str, type(None)})

# Immutable types of the standard library whose repr contains the whole value.
_BY_REPR = (
    range,
    complex,
    dt.date,
    dt.time,
    dt.timedelta,
    dt.timezone,
    decimal.Decimal,
    fractions.Fraction,
    uuid.UUID,
    type(...),
    type(NotImplemented),
)

# Classes written in C without this flag exist once; some, such as the class of functions, cannot
# be found by their name. (Py_TPFLAGS_HEAPTYPE, https://docs.python.org/3/c-api/typeobj.html)
_HEAP_TYPE = 1 << 9

_Walk = Generator["_Walk", Any, Any]


def freeze(value: Any) -> Hashable:
    """Return a key that equals another value's key when both are the same value.

    Plain scalars are fast, and mostly their own key. A key keeps objects alive that are compared
    by identity. Keys are valid in this process only: see :func:`digest`.

    >>> freeze(1) == freeze(1.0), freeze(float("nan")) == freeze(float("nan"))
    (False, True)
    >>> freeze({"a": 1, "b": [2]}) == freeze({"b": [2], "a": 1})
    True
    """
    kind = type(value)
    if kind is str or kind is int or value is None:
        return value  # type: ignore[no-any-return]
    if kind is float:
        return (kind, value or repr(value)) if value == value else (kind, "nan")  # noqa: PLR0124
    if kind is bool:
        return (kind, value)
    state = _State()
    token = state.token(value)
    # Other keys are never bytes, nor tuples that start with bytes.
    return (token, _Held(state.held)) if state.held else token


def key_of(value: Any) -> Hashable:
    """Return ``freeze(value)``, or a key of the object itself if its methods raise.

    For views of a sweep, which must work whatever its parameters are.
    """
    try:
        key = freeze(value)
        hash(key)
    except BaseException as error:
        if is_ctrl_c(error):
            raise
        return (b"unreadable", id(value))
    return key


def digest(value: Any) -> str:
    """Return 32 hex digits that are equal in any process for the same value.

    They are the start of a SHA-256. The digest of a value that contains an object which only this
    process has starts with ``~``, and is unique.

    >>> digest({"lr": 0.1, "width": 128})
    '992365c606aacddcabf2350f9f47f12a'
    >>> digest(object())[0]
    '~'
    """
    state = _State()
    text = hashlib.sha256(state.token(value)).hexdigest()[:32]
    return "~" + text if state.held else text


def fingerprint(value: Any) -> tuple[str, bool]:
    """Return 32 hex digits that change when the value does, in any process.

    Returns:
        The digits, and whether they cover the whole value: ``False`` if it contains
        an object that has neither a value nor a name to import it by. Only the class
        of such an object counts.

    >>> fingerprint({"epochs": 10}) == fingerprint({"epochs": 10})
    True
    >>> fingerprint([object()]) == fingerprint([object()]), fingerprint([object()])[1]
    (True, False)
    """
    state = _State(across_processes=True)
    try:
        token = state.token(value)
    except Exception:  # noqa: BLE001 - raised by a user's property or __eq__: use the class
        state = _State(across_processes=True)
        token = state.identity_token(value)
    return hashlib.sha256(token).hexdigest()[:32], not state.held


def copy_containers(value: Any) -> Any:
    """Return a copy of ``value`` with a new object for every list, dict, set and bytearray in it.

    A job that changes its parameter then changes no other job's. Tuples are copied if they contain
    something to copy; all other objects are shared. An object that occurs twice is copied once,
    cycles included. OmegaConf containers are deep-copied.

    >>> layers = [[64, 64], (128, [1])]
    >>> mine = copy_containers(layers)
    >>> mine[0].append(32); mine[1][1].append(2)
    >>> layers
    [[64, 64], (128, [1])]
    """
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is list and _PLAIN.issuperset(map(type, value)):  # what most containers are
        return value[:]
    if kind is dict and _PLAIN.issuperset(map(type, value.values())):
        return value.copy()
    return _run(_copy(value, {}))


def _run(walk: _Walk) -> Any:
    """Run a walk that yields the walks of its children: recursion without a depth limit."""
    stack = [walk]
    result: Any = None
    while stack:
        try:
            stack.append(stack[-1].send(result))
            result = None
        except StopIteration as stop:
            stack.pop()
            result = stop.value
    return result


class _Held:
    """Keeps objects alive inside a key, so that their ids, which it holds, name no others.

    Equal to any other: the ids already distinguish the keys, and their order may differ.
    """

    __slots__ = ("values",)

    def __init__(self, values: list[Any]) -> None:
        self.values = values

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held)

    def __hash__(self) -> int:
        return 0


class _State:
    """One walk through a value: objects known by their id, and containers being walked."""

    __slots__ = ("across_processes", "active", "held")

    def __init__(self, *, across_processes: bool = False) -> None:
        self.across_processes = across_processes
        self.held: list[Any] = []
        self.active: dict[int, int] = {}  # id -> depth, to meet a cycle without end

    def token(self, value: Any) -> bytes:
        """Return bytes that are equal for the same value only."""
        token: bytes = _run(_token(value, self))
        return token

    def identity_token(self, value: Any) -> bytes:
        """Return a token that no other object has; across processes, all of its class have it."""
        self.held.append(value)
        if self.across_processes:
            cls = value if isinstance(value, type) else type(value)
            return f"any:{cls.__module__}:{cls.__qualname__}".encode("utf-8", "surrogatepass")
        return b"here:%s:%d:%d" % (_NONCE, os.getpid(), id(value))


def _plain_token(value: Any) -> bytes | None:
    kind: type = type(value)
    if kind is str:
        return b"str:" + str.encode(value, "utf-8", "surrogatepass")
    if kind is int:
        return b"int:%x" % value  # hex: decimal text is limited to 4300 digits
    if kind is float:
        return b"float:" + repr(value).encode()
    if kind is bool or value is None:
        return b"const:" + repr(value).encode()
    if kind is bytes:
        return b"bytes:" + bytes(value)
    return None


def _node(tag: bytes, parts: Iterable[bytes]) -> bytes:
    # A hash of hashes: long or deep values keep short tokens.
    sha = hashlib.sha256()
    for part in parts:
        sha.update(b"%d:" % len(part))
        sha.update(part)
    return tag + b":" + sha.digest()


def _class_token(cls: type, state: _State) -> bytes:
    name = found_by_name(cls)
    if name is None and not cls.__flags__ & _HEAP_TYPE:
        name = f"{cls.__module__}:{cls.__qualname__}".encode()
    return state.identity_token(cls) if name is None else b"class:" + name


def _parts(children: Iterable[Any], state: _State) -> _Walk:
    parts = []
    for child in children:
        token = _plain_token(child)
        parts.append((yield _token(child, state)) if token is None else token)
    return parts


def _token(value: Any, state: _State) -> _Walk:
    plain = _plain_token(value)
    if plain is not None:
        return plain
    key, depth = id(value), len(state.active)
    if key in state.active:
        return b"cycle:%d" % (depth - state.active[key])
    state.active[key] = depth
    try:
        # `value` stays referenced by this frame, so that its id is not reused below it.
        return (yield _token_of_compound(value, state))
    finally:
        del state.active[key]


def _token_of_compound(value: Any, state: _State) -> _Walk:
    if isinstance(value, type):
        return _class_token(value, state)
    cls = _class_token(type(value), state)
    if isinstance(value, enum.Enum):
        # A combination of flags may have no name.
        label = value.name if value.name is not None else value.value
        return _node(b"enum", [cls, *(yield _parts([label], state))])
    found = data(value)
    if found is not None:
        return _node(b"data", [cls, *(yield _parts(found, state))])
    if isinstance(value, Mapping):
        keys = yield _parts(value.keys(), state)
        values = yield _parts([value[key] for key in value], state)
        items = sorted(_node(b"item", item) for item in zip(keys, values, strict=True))
        return _node(b"map", [cls, *items, *(yield _attributes(value, state))])
    if isinstance(value, (set, frozenset)):
        return _node(b"set", [cls, *sorted((yield _parts(value, state)))])
    if isinstance(value, (list, tuple, collections.deque)):
        items = yield _parts(value, state)
        return _node(b"seq", [cls, b"%d" % len(items), *items, *(yield _attributes(value, state))])
    if isinstance(value, (bytes, bytearray)):
        return _node(b"bytes", [cls, bytes(value)])
    for base in (str, int, float):
        if isinstance(value, base):  # of a subclass, whose own repr may say anything
            return _node(b"plain", [cls, base.__repr__(value).encode()])
    if isinstance(value, _BY_REPR):
        return _node(b"repr", [cls, repr(value).encode("utf-8", "surrogatepass")])
    if isinstance(value, pathlib.PurePath):
        return _node(b"path", [cls, os.fsencode(value)])
    if dataclasses.is_dataclass(value):
        fields = [field.name for field in dataclasses.fields(value) if field.compare]
        pairs = [(name, getattr(value, name, ...)) for name in fields]
        return _node(b"dataclass", [cls, *(yield _parts(pairs, state))])
    parts = children(value)
    if parts is None and state.across_processes:
        parts = state_of(value)
    if parts is not None:
        return _node(b"of", [cls, *(yield _parts(parts, state))])
    name = found_by_name(value) if callable(value) else None
    if name is not None:
        return b"name:" + name
    return state.identity_token(value)


def _attributes(value: Any, state: _State) -> _Walk:
    """Return the attributes of an instance of a container's subclass."""
    own = getattr(value, "__dict__", None)
    return (yield _parts([dict(own)], state)) if own else []


def _copy(value: Any, memo: dict[int, Any]) -> _Walk:
    if id(value) in memo:
        return memo[id(value)]
    new: Any = value
    if isinstance(value, list):
        new = memo[id(value)] = [] if type(value) is list else copy.copy(value)
        new[:] = yield _copies(value, memo)
    elif isinstance(value, dict):
        new = memo[id(value)] = {} if type(value) is dict else copy.copy(value)
        copies = yield _copies(value.values(), memo)
        for key, item in zip(value, copies, strict=True):
            new[key] = item
    elif isinstance(value, tuple):
        copies = yield _copies(value, memo)
        if id(value) in memo:  # a cycle through this tuple
            return memo[id(value)]
        if any(item is not old for item, old in zip(copies, value, strict=True)):
            make = getattr(type(value), "_make", None) or type(value)  # a named tuple, or a plain
            new = make(copies)
        memo[id(value)] = new
    elif isinstance(value, (set, bytearray)):  # what a set holds cannot change
        new = memo[id(value)] = copy.copy(value)
    elif (omegaconf := sys.modules.get("omegaconf")) and isinstance(value, omegaconf.Container):
        new = memo[id(value)] = copy.deepcopy(value)
    return new


def _copies(values: Iterable[Any], memo: dict[int, Any]) -> _Walk:
    copies = []
    for value in values:
        copies.append(  # noqa: PERF401 - a comprehension cannot yield
            value if type(value) in _PLAIN else (yield _copy(value, memo))
        )
    return copies
