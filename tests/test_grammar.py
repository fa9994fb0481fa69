"""The grammar of fit params, compared with a naive expansion."""

import itertools
import math
import tracemalloc
from enum import Enum

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from junky_core.errors import FitParamsError
from junky_core.space.grammar import expand_fit_params
from junky_core.values.identity import freeze


def naive(grid):
    """Expand a grid literally as specified, with lists."""
    if isinstance(grid, dict):
        grid = list(grid.items())
    pairs, subs = [], []
    for item in grid:
        is_pair = not isinstance(item, dict) and len(item) == 2 and isinstance(item[0], str)
        (pairs if is_pair else subs).append(item)
    own = [{}]
    for key, values in pairs:
        values = list(values) if isinstance(values, (list, tuple, range)) else [values]
        own = [{**combination, key: value} for combination in own for value in values]
    if not subs:
        return own
    return [{**above, **below} for sub in subs for above in own for below in naive(sub)]


def without_duplicates(combinations):
    kept = {}
    for combination in combinations:
        kept.setdefault(frozenset((k, freeze(v)) for k, v in combination.items()), combination)
    return list(kept.values())


def expected(grid):
    return without_duplicates(naive(grid))


def typed(combinations):
    """Make 1, 1.0 and True compare as different, and NaN as equal."""
    return [[(key, freeze(value)) for key, value in c.items()] for c in combinations]


values = st.one_of(
    st.lists(st.sampled_from([1, 2, 3, 1.0, True, None, "x", math.nan]), min_size=1, max_size=4),
    st.sampled_from([1, 2, "x", None, 0.5]),
    st.builds(range, st.integers(0, 1), st.integers(2, 5)),
    st.just([[1, 2], [1, 2], [1]]),
)


@st.composite
def grids(draw, keys="abcde", depth=4):
    """Draw a grid in which no key occurs twice along a path."""
    count = draw(st.integers(0, min(2, len(keys))))
    own = draw(st.permutations(keys))[:count]
    rest = [key for key in keys if key not in own]
    pairs = [draw(st.sampled_from([tuple, list]))([key, draw(values)]) for key in own]
    if depth == 0:
        return pairs
    subs = [draw(grids(rest, depth - 1)) for _ in range(draw(st.integers(0, 3)))]
    if not subs and draw(st.booleans()) and pairs:
        return dict(pairs)
    # A pair of one-letter strings would be read as a pair, so no level may start with one.
    items = pairs + subs
    return draw(st.permutations(items)) if items else items


small = settings(max_examples=150, deadline=None)


@small
@given(grids())
def test_equals_the_naive_expansion(grid):
    assert typed(expand_fit_params(grid)) == typed(expected(grid))


@small
@given(grids())
def test_length_and_indexing_agree_with_iteration(grid):
    space = expand_fit_params(grid)
    assert len(space) == len(expected(grid))  # before any iteration
    combinations = typed(space)
    assert typed([space[i] for i in range(len(space))]) == combinations
    assert typed([space[i - len(space)] for i in range(len(space))]) == combinations
    assert typed(space[1:-1:2]) == combinations[1:-1:2]
    assert typed(space[::-1]) == combinations[::-1]


@small
@given(grids(keys="ab"), grids(keys="ab"), grids(keys="ab"))
def test_overlapping_alternatives_keep_the_first(one, two, three):
    grid = [["c", [1, 2]], one, [["d", [3, 4]], two, three], [["d", [4, 5]], one]]
    space = expand_fit_params(grid)
    assert typed(space) == typed(expected(grid))
    assert typed([space[i] for i in range(len(space))]) == typed(expected(grid))


@small
@given(grids(), st.sampled_from("abcde"))
def test_without_key_is_the_grid_with_that_key_taken_out(grid, key):
    rest = [{k: v for k, v in combination.items() if k != key} for combination in naive(grid)]
    space = expand_fit_params(grid).without_key(key)
    assert {frozenset(c) for c in map(tuple, typed(space))} == {
        frozenset(c) for c in map(tuple, typed(rest))
    }
    assert len(space) == len(without_duplicates(rest))


@small
@given(grids(), st.sampled_from("abcde"))
def test_fixing_keeps_combinations_with_the_value_or_without_the_key(grid, key):
    def alike(combination):
        return freeze(combination[key]) == freeze(1)

    combinations = expected(grid)
    kept = [c for c in combinations if key not in c or alike(c)]
    space = expand_fit_params(grid).fixing(key, 1)
    if any(key in c and alike(c) for c in combinations):
        assert sorted(map(str, typed(space))) == sorted(map(str, typed(kept)))
    else:
        assert space is None


FIRST = [("a", [50, 100]), ("b", [0.1, 0.5])]
SECOND = [("a", [50, 100]), [("b", [0.1, 0.5])], [("b", None), ("c", ["X", "Y"])]]


def test_first_documented_example():
    assert list(expand_fit_params(FIRST)) == [
        {"a": 50, "b": 0.1},
        {"a": 50, "b": 0.5},
        {"a": 100, "b": 0.1},
        {"a": 100, "b": 0.5},
    ]


def test_second_documented_example():
    assert list(expand_fit_params(SECOND)) == [
        {"a": 50, "b": 0.1},
        {"a": 50, "b": 0.5},
        {"a": 100, "b": 0.1},
        {"a": 100, "b": 0.5},
        {"a": 50, "b": None, "c": "X"},
        {"a": 50, "b": None, "c": "Y"},
        {"a": 100, "b": None, "c": "X"},
        {"a": 100, "b": None, "c": "Y"},
    ]


def test_pairs_may_follow_sub_grids():
    moved = [SECOND[1], SECOND[0], SECOND[2]]
    assert list(expand_fit_params(moved)) == list(expand_fit_params(SECOND))


def test_an_alternative_inside_a_sub_grid_varies_faster_than_the_pairs_above():
    grid = [("a", [1, 2]), [("b", [3, 4]), {"c": 5}, {"d": 6}]]
    assert [tuple(c.items()) for c in expand_fit_params(grid)] == [
        (("a", a), ("b", b), last) for a in (1, 2) for last in (("c", 5), ("d", 6)) for b in (3, 4)
    ]


@pytest.mark.parametrize("empty", [None, [], (), {}, [[]], iter(())])
def test_nothing_is_one_job_without_params(empty):
    space = expand_fit_params(empty)
    assert list(space) == [{}] == [space[0]]
    assert len(space) == 1


def test_an_empty_sub_grid_adds_nothing():
    assert list(expand_fit_params([("a", [1, 2]), [], {"b": 3}])) == [
        {"a": 1},
        {"a": 2},
        {"a": 1, "b": 3},
        {"a": 2, "b": 3},
    ]


def test_a_mapping_at_the_top_is_the_grid_and_inside_a_list_an_alternative():
    assert list(expand_fit_params({"a": [1, 2], "b": 3})) == [{"a": 1, "b": 3}, {"a": 2, "b": 3}]
    assert list(expand_fit_params([{"a": 1}, {"b": 2}])) == [{"a": 1}, {"b": 2}]


class Colour(Enum):
    RED = 1
    BLUE = 2


@pytest.mark.parametrize(
    "value",
    [
        *("ab", b"ab", None, 3, 0.5, {"x": [1, 2]}, np.float64(3)),
        *(np.array(3), bytearray(b"x"), Exception, print, Colour.RED),
    ],
    ids=repr,
)
def test_a_single_object_is_one_value(value):
    (combination,) = expand_fit_params([("a", value)])
    assert type(combination["a"]) is type(value)
    assert combination["a"] == value


@pytest.mark.parametrize(
    "several",
    [
        *([1, 2], (1, 2), range(1, 3), np.array([1, 2]), {2, 1}),
        *({1: 0, 2: 0}.keys(), OmegaConf.create([1, 2])),
    ],
    ids=lambda v: type(v).__name__,
)
def test_an_iterable_is_the_values_to_try(several):
    assert [c["a"] for c in expand_fit_params([("a", several)])] == [1, 2]
    assert [c["a"] for c in expand_fit_params([("b", 0), {"a": several}])] == [1, 2]


def test_a_list_inside_the_values_is_one_value():
    space = expand_fit_params([("layers", [[64, 64], [128]])])
    assert list(space) == [{"layers": [64, 64]}, {"layers": [128]}]


def test_rows_of_an_array_are_its_values():
    rows = [c["a"] for c in expand_fit_params([("a", np.eye(2))])]
    assert np.array_equal(rows, np.eye(2))


def test_elements_of_an_array_keep_their_type():
    (combination,) = expand_fit_params({"a": np.array([0.5], dtype=np.float32)})
    assert type(combination["a"]) is np.float32


def test_a_set_of_values_has_the_same_order_everywhere():
    words = {"w", "b", "zz", "a"}
    assert [c["a"] for c in expand_fit_params({"a": words})] == sorted(words)
    mixed = {1, "b", None, (2, 3), 0.5}
    order = [freeze(c["a"]) for c in expand_fit_params({"a": mixed})]
    assert order == [freeze(c["a"]) for c in expand_fit_params({"a": {*mixed}})]
    assert len(order) == 5


def test_everything_may_be_an_iterator_and_is_read_once():
    grid = (item for item in [("a", iter([1, 2])), iter([iter(["b", iter([3])])]), {"c": 4}])
    space = expand_fit_params(grid)
    found = [{"a": 1, "b": 3}, {"a": 2, "b": 3}, {"a": 1, "c": 4}, {"a": 2, "c": 4}]
    assert list(space) == found == list(space)


def test_items_of_a_dict_are_a_grid():
    assert len(expand_fit_params({"a": [1, 2], "b": [3, 4]}.items())) == 4


def test_omegaconf_containers_are_read_as_plain_ones():
    source = OmegaConf.create(
        {"n": 7, "grid": [["w", [1, "${n}"]], {"layers": [[1, 2]]}, {"o": {"x": 1}}]}
    )
    source.grid[2].o = {"x": 1}
    space = expand_fit_params([*source.grid])
    assert space == expand_fit_params(source.grid)
    assert next(iter(space)) == {"w": 1, "layers": [1, 2]}
    assert type(space[0]["layers"]) is list
    assert [c["w"] for c in space[:2]] == [1, 7]
    assert type(space[2]["o"]) is dict


def test_an_interpolation_that_leads_nowhere_is_an_error():
    with pytest.raises(FitParamsError, match=r"fit_params cannot be read.*nowhere"):
        expand_fit_params(OmegaConf.create([["a", ["${nowhere}"]]]))


def test_a_missing_value_is_an_error():
    with pytest.raises(FitParamsError, match="cannot be read"):
        expand_fit_params(OmegaConf.create({"a": "???"}))


def test_duplicates_are_known_by_type_and_content():
    given = [
        1,
        1.0,
        True,
        "1",
        1,
        [1],
        (1,),
        [1],
        {"x": 1, "y": 2},
        {"y": 2, "x": 1},
        math.nan,
        math.nan,
    ]
    kept = [c["a"] for c in expand_fit_params({"a": given})]
    assert typed([{"a": v} for v in kept]) == typed(
        [{"a": v} for v in [1, 1.0, True, "1", [1], (1,), {"x": 1, "y": 2}, math.nan]]
    )


def test_the_order_of_keys_does_not_make_a_difference():
    assert list(expand_fit_params([{"a": 1, "b": 2}, {"b": 2, "a": 1}])) == [{"a": 1, "b": 2}]


def test_equal_alternatives_that_add_nothing_are_one():
    assert list(expand_fit_params([("a", [1, 2]), [], [], [[]]])) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("grid", "parts"),
    [
        ("abc", ["fit_params is not a grid", "'abc'"]),
        (b"abc", ["fit_params is not a grid"]),
        (5, ["fit_params is not a grid", "5"]),
        (print, ["fit_params is not a grid"]),
        ({1, 2}, ["fit_params is not a grid", "no order"]),
        (np.array([["a", "1"]]), ["fit_params is not a grid"]),
        (Colour, ["fit_params is not a grid"]),
        (("a", [1, 2]), ["single pair", "[['a', [1, 2]]]"]),
        (["a", "b", "c"], ["starts with the string 'a'"]),
        ([("a", 1), "b", [2]], ["fit_params[1]", "'b'", "['b', values]"]),
        ([1], ["fit_params[0]", "neither a pair nor a sub-grid", "1"]),
        ([None], ["fit_params[0]", "None", "write []"]),
        ([("x", 1), {"a"}], ["fit_params[1]", "no order"]),
        ([(1, [2, 3])], ["fit_params[0][0]", "if fit_params[0] is meant as a pair"]),
        ([(None, [2, 3])], ["fit_params[0][0]", "if fit_params[0] is meant as a pair"]),
        ([["a"]], ["fit_params[0]", "no values", "['a', [1, 2]]"]),
        ([["a", 1, 2]], ["fit_params[0]", "3 items", "['a', [1, 2]]"]),
        ([{"b": 1}, [["x", 1], ("a", [])]], ["fit_params[1][1]", "'a' has no values"]),
        ({"a": []}, ["fit_params['a']", "'a' has no values"]),
        ({"a": np.array([])}, ["fit_params['a']", "'a' has no values"]),
        ({"a": range(0)}, ["fit_params['a']", "'a' has no values"]),
        ({1: [2]}, ["fit_params[1]", "key 1", "string"]),
        ([{True: [2]}], ["fit_params[0][True]", "string"]),
        ([("", 1)], ["fit_params[0]", "''"]),
        ([("a", 1), ("a", 2)], ["'a'", "fit_params[0]", "fit_params[1]"]),
        ([[[("a", 1)]], ("a", 2)], ["'a'", "at fit_params[1] and at fit_params[0][0][0]"]),
        ([("a", itertools.count())], ["fit_params[0]", "never ends"]),
        (itertools.repeat(("a", 1)), ["fit_params", "never ends"]),
    ],
    ids=repr,
)
def test_bad_grids_are_named_with_their_place(grid, parts):
    with pytest.raises(FitParamsError) as caught:
        expand_fit_params(grid)
    for part in parts:
        assert part in str(caught.value)


def test_errors_call_the_grid_by_the_name_given():
    with pytest.raises(FitParamsError, match=r"hydra\.sweeper\.fit_params\[0\]"):
        expand_fit_params([3], name="hydra.sweeper.fit_params")


def test_an_iterator_used_twice_is_an_error():
    once = iter([1, 2])
    with pytest.raises(FitParamsError, match=r"fit_params\[1\].*read only once"):
        expand_fit_params([("a", once), ("b", once)])


def test_a_grid_that_contains_itself_is_an_error():
    grid = [("a", 1)]
    grid.append([("b", 1), grid])
    with pytest.raises(FitParamsError, match=r"fit_params\[1\]\[1\] contains itself"):
        expand_fit_params(grid)


def test_a_sub_grid_may_be_used_in_two_places():
    shared = {"lr": [1, 2]}
    grid = [[("o", "a"), shared], [("o", "b"), shared]]
    assert len(expand_fit_params(grid)) == 4


def test_an_exception_of_a_generator_propagates():
    def broken():
        yield ("a", 1)
        raise TypeError("mine")

    with pytest.raises(TypeError, match="mine"):
        expand_fit_params(broken())


def bare(key):
    return key.lstrip("+")


def test_keys_are_compared_as_normalised_and_kept_as_written():
    space = expand_fit_params([{"+lr": 1}, {"lr": [1, 2]}], normalise_key=bare)
    assert list(space) == [{"+lr": 1}, {"lr": 2}]
    assert space.keys == ("+lr",)
    with pytest.raises(FitParamsError, match="twice"):
        expand_fit_params([("+lr", 1), ("++lr", 2)], normalise_key=bare)
    assert list(space.without_key("++lr")) == [{}]
    assert list(space.fixing("++lr", 2)) == [{"lr": 2}]
    assert space.mentions("++lr")
    assert not space.mentions("momentum")


class Key(str, Enum):
    WIDTH = "width"


def test_keys_become_plain_strings():
    (combination,) = expand_fit_params({Key.WIDTH: 1, np.str_("lr"): 2})
    assert [(type(key), key) for key in combination] == [(str, "width"), (str, "lr")]
    with pytest.raises(FitParamsError, match="twice"):
        expand_fit_params([(Key.WIDTH, 1), ("width", 2)])


def test_fixing_uses_the_predicate_given():
    space = expand_fit_params([("w", [1, 2]), {"opt": "adam", "lr": [1, 2]}, {"opt": "sgd"}])
    found = space.fixing("opt", "ADAM", same=lambda one, other: one.upper() == other)
    assert list(found) == [{"w": w, "opt": "adam", "lr": lr} for w in (1, 2) for lr in (1, 2)]
    assert space.fixing("opt", "ADAM") is None
    assert space.fixing("unknown", 1) is None


def test_fixing_drops_an_alternative_whose_sub_grids_all_lack_the_value():
    grid = [[("x", 1), {"o": "a"}, {"o": "b"}], [("x", 2), {"o": "b"}, {"o": "c"}], {"y": 3}]
    found = list(expand_fit_params(grid).fixing("o", "a"))
    assert found == [{"x": 1, "o": "a"}, {"y": 3}]


def test_keys_come_in_the_order_of_their_first_appearance():
    space = expand_fit_params([{"b": 1}, ("a", 2), {"c": 1, "b": 2}])
    assert space.keys == ("a", "b", "c")


def test_varying_keys_have_several_values_or_are_absent_somewhere():
    space = expand_fit_params([("a", [1]), ("b", [1, 2]), {"c": 1, "d": 5}, {"c": 2}, {"c": 1.0}])
    assert space.varying == ("b", "c", "d")
    assert expand_fit_params([{"a": 1, "b": 1}, {"a": 1, "b": 2}]).varying == ("b",)


def test_explains_how_the_count_comes_about():
    grid = [("w", [1, 2, 2]), {"o": "adam", "lr": [1, 2]}, {"o": ["sgd", "adam"], "lr": 1}]
    assert expand_fit_params(grid).explain() == [
        "6 = 2 (w, 1 repeated) x (2 + 2 - 1 duplicate)",
        "  2 = 2 (lr), o='adam'",
        "  2 = 2 (o), lr=1",
    ]
    assert expand_fit_params(None).explain() == ["1 = nothing varies"]


def test_an_explanation_is_cut_to_the_lines_asked_for():
    lines = expand_fit_params([{"a": i} for i in range(100)]).explain(max_lines=5)
    assert len(lines) == 5
    assert lines[-1] == "... and 97 more alternatives"


def test_compares_equal_to_a_list_of_the_same_dicts():
    assert expand_fit_params(FIRST) == list(expand_fit_params(FIRST))
    assert expand_fit_params(FIRST) == expand_fit_params(dict(FIRST))
    assert expand_fit_params(FIRST) != list(expand_fit_params(SECOND))
    assert expand_fit_params(FIRST) != "x"


def test_an_expanded_grid_is_returned_unchanged():
    space = expand_fit_params(FIRST)
    assert expand_fit_params(space) is space


def test_index_errors_and_integer_like_indices():
    space = expand_fit_params(FIRST)
    assert space[np.int64(1)] == {"a": 50, "b": 0.5}
    for index in (4, -5):
        with pytest.raises(IndexError):
            space[index]
    with pytest.raises(TypeError):
        space["a"]


def test_changing_one_combination_changes_no_other():
    values = [[64, 64]]
    space = expand_fit_params([("layers", values), ("b", [1, 2]), {"o": {"x": []}}])
    for combination in (*space, space[0], *space[:]):
        combination["layers"].append(1)
        combination["o"]["x"].append(1)
        combination["b"] = 5
    assert list(space) == [{"layers": [64, 64], "b": b, "o": {"x": []}} for b in (1, 2)]
    assert values == [[64, 64]]


def test_a_value_is_the_object_that_was_given():
    class Thing:
        pass

    one, two = Thing(), Thing()
    assert [c["a"] for c in expand_fit_params({"a": [one, two, one]})] == [one, two]


def test_repr_has_count_and_keys():
    assert repr(expand_fit_params(FIRST)) == "<FitParams: 4 combinations of a, b>"


# --- scale ----------------------------------------------------------------------------------------


def test_a_billion_combinations_take_no_memory():
    tracemalloc.start()
    try:
        space = expand_fit_params([(key, range(1000)) for key in "abc"])
        assert len(space) == 10**9
        assert space[123456789] == {"a": 123, "b": 456, "c": 789}
        assert next(iter(space)) == {"a": 0, "b": 0, "c": 0}
        assert list(itertools.islice(space, 10**5, 10**5 + 1)) == [space[10**5]]
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_a_long_range_is_never_made_a_list():
    space = expand_fit_params([("a", range(10**12)), ("b", "xy"), {"c": 1}, {"c": [2, 3]}])
    assert len(space) == 3 * 10**12
    assert next(iter(space)) == {"a": 0, "b": "xy", "c": 1}
    assert space[10**12] == {"a": 0, "b": "xy", "c": 2}


def test_duplicates_between_large_alternatives_cost_only_the_overlap():
    shared = range(1000)
    grid = [
        ("w", [1, 2]),
        {"a": shared, "b": shared, "c": [0]},
        {"a": [5], "b": shared, "c": [0, 1]},
        {"a": shared, "b": shared, "c": [2]},
    ]
    tracemalloc.start()
    try:
        space = expand_fit_params(grid)
        assert len(space) == 2 * (10**6 + 1000 + 10**6)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
    assert space[2 * 10**6 + 1000] == {"w": 2, "a": 5, "b": 0, "c": 1}


def test_nothing_is_compared_before_the_result_is_needed():
    space = expand_fit_params([("w", [1, 2]), {"a": range(10**9)}, {"a": range(10**9)}])
    assert next(iter(space)) == {"w": 1, "a": 0}
    assert repr(space) == "<FitParams: at most 4000000000 combinations of w, a>"
    with pytest.raises(FitParamsError, match="too many to find the duplicates"):
        len(space)


def test_size_is_exact_after_the_comparison():
    space = expand_fit_params([{"a": [1, 2]}, {"a": [2, 3]}])
    assert repr(space) == "<FitParams: at most 4 combinations of a>"
    assert len(space) == 3
    assert repr(space) == "<FitParams: 3 combinations of a>"


def test_more_combinations_than_len_can_return():
    space = expand_fit_params([(f"k{i}", range(1000)) for i in range(30)])
    assert space.size == 1000**30
    assert space
    assert space[-1] == {f"k{i}": 999 for i in range(30)}
    with pytest.raises(OverflowError):
        len(space)


def test_overlaps_too_large_to_compare_are_an_error():
    space = expand_fit_params([{"a": range(10**9)}, {"a": range(10**9)}])
    with pytest.raises(FitParamsError, match="do not overlap"):
        len(space)


def test_ten_thousand_explicit_combinations():
    grid = [{"a": i % 100, "b": i // 100} for i in range(10_000)] + [{"a": 5, "b": 7}]
    space = expand_fit_params(grid)
    assert list(space) == grid[:-1]
    assert space[-1] == {"a": 99, "b": 99}


DEPTH = 200  # as the documentation says


def nested(levels, wrap=lambda number, grid: [grid]):
    grid = [("last", [1, 2])]
    for number in range(1, levels):
        grid = wrap(number, grid)
    return grid


def in_deep_code(call, frames=500):
    return call() if not frames else in_deep_code(call, frames - 1)


DEEP = [
    lambda number, grid: [grid],
    lambda number, grid: [(f"k{number}", [number]), grid],
    lambda number, grid: [{"other": number}, grid],
    lambda number, grid: [(f"k{number}", [0, 1] if number % 30 == 0 else [0]), {"end": 0}, grid],
    lambda number, grid: [(f"k{number}", [0]), {"end": 0}, {"end": [0, 1]}, grid],
]


@pytest.mark.parametrize(
    "wrap", DEEP, ids=["brackets", "chain", "alternatives", "choices", "duplicates"]
)
def test_a_deep_grid_works_deep_inside_other_code(wrap):
    grid = nested(DEPTH, wrap)

    def everything():
        space = expand_fit_params(grid)
        combinations = list(space)
        assert len(space) == len(combinations)
        assert typed(combinations) == typed([space[i] for i in range(len(space))])
        assert {c["last"] for c in combinations if "last" in c} == {1, 2}
        assert len(space.explain(10**6)) > 0
        assert len({*space.pairs()}) >= 2
        assert len(space.without_key("last")) < len(space)
        assert [c for c in space.fixing("last", 2) if "last" in c] == [
            c for c in combinations if c.get("last") == 2
        ]

    in_deep_code(everything)


@pytest.mark.parametrize("levels", [DEPTH + 1, 5000])
@pytest.mark.parametrize(
    "wrap", DEEP, ids=["brackets", "chain", "alternatives", "choices", "duplicates"]
)
def test_a_grid_too_deep_for_python_is_an_error(wrap, levels):
    with pytest.raises(
        FitParamsError, match=r"^grid\[\d\]\[\d\].* nested more than 200 levels deep"
    ):
        expand_fit_params(nested(levels, wrap), name="grid")


def test_a_grid_that_makes_sub_grids_without_end_is_an_error():
    class Endless:
        def __iter__(self):
            yield Endless()

    with pytest.raises(FitParamsError, match="nested more than 200 levels deep"):
        expand_fit_params(Endless())


@pytest.mark.parametrize("wide", [10, 61])
def test_deep_duplicates(wide):
    depth = 60
    grid = [("a", [1, 2])]
    for i in reversed(range(depth)):
        twin = {f"k{j}": 0 for j in range(i + 1, depth)} | {"a": [2, 3]}
        grid = [(f"k{i}", [0, 1] if i % wide == 0 else [0]), twin, grid]
    space = expand_fit_params(grid)
    assert list(space) == expected(grid)
    assert [space[i] for i in range(len(space))] == expected(grid)
