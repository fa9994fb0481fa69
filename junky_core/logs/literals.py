"""Read Python literals as data, without evaluating them.

Anyone may have written the text, so its tokens are checked before Python's own
parser sees it: chains of operators, which overflow old parsers, and escapes that
cause warnings are refused.
"""

from __future__ import annotations

import ast
import re
from typing import Any

__all__ = ["read_loosely", "read_params", "split_balanced"]

_ESCAPE = r"\\(?:[\n\\'\"abfnrtv]|[0-3][0-7]{0,2}|[4-7][0-7]?(?![0-7])|x[0-9a-fA-F]{2}|[uUN])"
_SINGLE = rf"'[^'\\\n]*(?:{_ESCAPE}[^'\\\n]*)*'"
_DOUBLE = rf'"[^"\\\n]*(?:{_ESCAPE}[^"\\\n]*)*"'
_STRING = rf"(?<![\w'\"])[bB]?(?:{_SINGLE}|{_DOUBLE})"
_DIGITS = r"(?:0[xob][0-9a-fA-F]+|\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?)"
_NUMBER = rf"(?<![\w.]){_DIGITS}j?(?![\w.])"
_COMPLEX = rf"\(-?{_DIGITS}[-+]{_DIGITS}j\)"
_SIGN = r"(?:(?<=[(\[{,:])|(?<=[,:] ))-(?=[\d.in])"  # no operator: only what begins a value
_NAME = r"\b(?:True|False|None|nan|inf|set\(\))(?!\w)"
_LITERALS = re.compile(rf"(?:{_STRING}|{_COMPLEX}|{_NUMBER}|{_NAME}|{_SIGN}|[()\[\]{{}},:]|\s)*")
_BRACKETS = re.compile(
    r"""[()\[\]{}]|'[^'\\]*(?:\\.[^'\\]*)*'|"[^"\\]*(?:\\.[^"\\]*)*"|['"]""", re.DOTALL
)
_PAIR = re.compile(r"\(\s*(['\"])(.*?)\1,\s*(.*)\)", re.DOTALL)
_MAX_LENGTH = 1 << 20


class _NonFinite(ast.NodeTransformer):
    """Replaces the names ``nan`` and ``inf``, as ``repr`` writes them, with floats."""

    def visit_Name(self, node: ast.Name) -> ast.AST:
        """Replace one name."""
        return ast.Constant(float(node.id)) if node.id in ("nan", "inf") else node


def read_params(text: str) -> dict[str, Any] | str:
    """Read the ``repr`` of a tuple of pairs as a dict; return any other text unchanged.

    >>> read_params("(('a', 50), ('b', [0.1, -inf]))")
    {'a': 50, 'b': [0.1, -inf]}
    >>> read_params("(('a', <class 'int'>),)")
    "(('a', <class 'int'>),)"
    """
    if len(text) > _MAX_LENGTH or not _LITERALS.fullmatch(text):
        return text
    try:
        tree = ast.parse(text, mode="eval")
        if "nan" in text or "inf" in text:
            tree = _NonFinite().visit(tree)
        pairs = ast.literal_eval(tree)
        good = isinstance(pairs, tuple) and all(
            isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)
            for pair in pairs
        )
        return dict(pairs) if good else text
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text


def read_loosely(text: str) -> dict[str, Any]:
    """Read the ``repr`` of a tuple of pairs; values that are not literals stay text.

    A text of another form is returned under the key ``params``.

    >>> read_loosely("(('a', 50), ('b', <class 'int'>))")
    {'a': 50, 'b': "<class 'int'>"}
    """
    exact = read_params(text)
    if isinstance(exact, dict):
        return exact
    params: dict[str, Any] = {}
    rest = text.strip()[1:-1]
    while rest := rest.lstrip(", "):
        pair, rest = split_balanced(rest)
        found = _PAIR.fullmatch(pair or "")
        if found is None:
            return {"params": text}
        exact = read_params(f"({pair},)")
        params.update(exact if isinstance(exact, dict) else {found[2]: found[3]})
    return params or {"params": text}


def split_balanced(text: str) -> tuple[str | None, str]:
    """Split ``text`` after the bracket that closes its first one; ``(None, text)`` if none does.

    >>> split_balanced("(('a', ')'),) and more")
    ("(('a', ')'),)", ' and more')
    """
    depth = 0
    for token in _BRACKETS.finditer(text):
        mark = token.group()
        if mark in "([{":
            depth += 1
        elif mark in ")]}":
            depth -= 1
            if depth <= 0:
                return text[: token.end()], text[token.end() :]
        elif len(mark) == 1:  # a string that does not end
            break
    return None, text
