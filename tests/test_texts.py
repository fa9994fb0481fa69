import re

import pytest

from junky_core.values.texts import cut, excerpt, visible


def test_plain_text_is_unchanged():
    for text in ("", "a b", "Größe 😀 \u200d \xa0", "日本語"):
        assert visible(text) is text or visible(text) == text


@pytest.mark.parametrize("number", [*range(32), *range(127, 160), 0x2028, 0x202E, 0x2066, 0x200F])
def test_control_characters_are_escaped(number):
    assert visible(f"a{chr(number)}b") == f"a{chr(number)!r}b".replace("'", "")


def test_lines_keep_their_ends_and_tabs():
    assert visible("a\n\tb\r\x1b[2J", lines=True) == "a\n\tb\\r\\x1b[2J"


@pytest.mark.parametrize("text", ["x" * 100, "é" * 100, "😀" * 100, "\ud800" * 100, "a\nb" * 100])
@pytest.mark.parametrize("limit", [10, 99])
def test_both_ends_of_a_long_text_are_kept(text, limit):
    short = cut(text, limit, "; see there")
    found = re.fullmatch(
        r"(.*?)\s\.\.\. (\d+) characters left out; see there \.\.\.\s(.*)", short, re.DOTALL
    )
    assert found
    kept = found[1] + found[3]
    assert len(kept.encode("utf-8", "backslashreplace")) <= limit
    if "\ud800" not in text:
        assert text.startswith(found[1])
        assert text.endswith(found[3])
        assert int(found[2]) + len(kept) == len(text)


def test_a_text_that_fits_is_not_cut():
    assert cut("x" * 100, 100) == "x" * 100
    assert cut("é" * 50, 100) == "é" * 50


@pytest.mark.parametrize(
    "text", ["\0" * 9000, "x" * 9000, "a\x1b\n" * 3000, "\u202e" * 9000, "y" * 990]
)
def test_an_excerpt_is_short_even_with_many_escapes(text):
    short = excerpt(text, 1000, "; see there")
    assert len(short.encode()) <= 1070
    assert visible(short, lines=True) == short
    assert ("; see there" in short) == (len(text) > 1000)
