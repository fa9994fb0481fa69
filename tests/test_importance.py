import itertools
import random

import pytest

from junky_core.views.report.importance import importance


def test_of_two_effects_the_larger_counts_more():
    grid = list(itertools.product([1, 2, 3], [1, 2], range(3)))
    scores = [10 * a + b + 0.01 * c for a, b, c in grid]
    first = importance([a for a, _, _ in grid], scores)
    second = importance([b for _, b, _ in grid], scores)
    third = importance([c for _, _, c in grid], scores)
    assert first > 0.8
    assert first > second > third


def test_a_parameter_without_effect_has_almost_no_importance():
    dice = random.Random(0)
    scores = [dice.random() for _ in range(500)]
    assert importance([dice.random() for _ in scores], scores) < 0.05


def test_the_share_explained_by_chance_is_subtracted():
    dice = random.Random(0)
    column = [1, 2, 3, 4] * 3
    found = [importance(column, [dice.random() for _ in column]) for _ in range(300)]
    assert sum(found) / len(found) < 0.15  # chance alone would give 3 / 11


def test_a_number_with_many_values_is_binned():
    dice = random.Random(0)
    column = [dice.random() for _ in range(300)]
    assert importance(column, [-((x - 0.5) ** 2) for x in column]) > 0.8


def test_one_diverged_run_does_not_hide_an_effect():
    column = [1, 2] * 10
    scores = [x + 0.01 * k for k, x in enumerate(column)]
    scores[0] = -1e9
    assert importance(column, scores) > 0.5
    scores[0] = float("nan")
    assert importance(column, scores) > 0.5


def test_a_conditional_parameter_does_not_get_the_effect_of_its_sub_grid():
    # sgd (with momentum) is far worse than adam (without), momentum itself does nothing.
    column = [None] * 20 + [0.0, 0.9] * 10
    scores = [1 + 0.001 * k for k in range(20)] + [0.001 * (k // 2) for k in range(20)]
    assert importance(column, scores) < 0.05


@pytest.mark.parametrize(
    ("column", "scores"),
    [
        ([], []),
        ([1, 2, 3, 4], [0.1, 0.2, 0.3, 0.4]),
        ([1, 1, 1, 1], [0.1, 0.2, 0.3, 0.4]),
        ([1, 1, 2, 2], [0.5] * 4),
        ([None, None, 1, 2, None], [1, 2, 3, 4, 5]),
    ],
)
def test_too_few_jobs_give_no_importance(column, scores):
    assert importance(column, scores) is None
