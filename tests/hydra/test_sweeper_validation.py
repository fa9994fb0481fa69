"""Which jobs are composed in order to check all."""

from dataclasses import dataclass
from enum import Enum

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from hydra_plugins.hydra_junky_sweeper._space import JobOverrides, build_jobs
from hydra_plugins.hydra_junky_sweeper._validation import sample_jobs


class Color(Enum):
    RED = 1
    BLUE = 2


@dataclass
class Typed:
    color: Color = Color.RED
    count: int = 1
    rate: float = 1.0
    text: str = ""


class Loader:
    """Composes without groups or files."""

    composed = 0

    def compose(self, jobs):
        def composed(num):
            self.composed += 1
            config = OmegaConf.create({"free": None, "typed": Typed})
            for line in jobs[num]:
                override = OverridesParser.create().parse_override(line)
                OmegaConf.update(config, override.key_or_group, override.value(), force_add=True)
            return config

        return composed


@pytest.fixture
def sampled():
    def sample(grid, *arguments, groups=()):
        jobs = build_jobs(grid, {}, arguments, None)
        assert isinstance(jobs, JobOverrides)
        nums = list(sample_jobs(jobs, set(groups).__contains__, Loader().compose(jobs)))
        return [jobs[num] for num in nums]

    return sample


def test_numbers_for_an_untyped_node_are_one_kind(sampled):
    assert sampled([["free", list(range(1000))]]) == [["free=0"]]
    assert sampled([["typed.rate", [0.5, 0.25]], ["typed.count", [1, 2]]]) == [
        ["typed.rate=0.5", "typed.count=1"]
    ]


def test_a_float_that_is_whole_is_another_kind(sampled):
    assert sampled([["typed.count", [1, 1.5, 2.5, 2.0, 3]]]) == [
        ["typed.count=1"],
        ["typed.count=1.5"],
        ["typed.count=2.0"],
    ]


def test_each_string_counts_if_the_node_is_typed(sampled):
    assert len(sampled([["typed.color", ["RED", "BLUE"]]])) == 2
    assert len(sampled([["typed.color", [1, 2]]])) == 2
    assert len(sampled([["free", ["RED", "BLUE", "${typed.count}"]]])) == 2
    assert len(sampled([["typed.text", ["RED", "BLUE"]]])) == 1


def test_each_option_of_a_group_meets_each_kind(sampled):
    assert sampled([["free", [1, 2, "x"]], ["db", ["a", "b"]]], groups=["db"]) == [
        ["free=1", "db=a"],
        ["free=1", "db=b"],
        ["free=x", "db=a"],
        ["free=x", "db=b"],
    ]


def test_groups_of_the_command_line_meet_those_of_the_grid(sampled):
    jobs = sampled([["net", ["s", "l"]], ["free", [1, 2]]], "db=a,b", groups=["db", "net"])
    assert [job[:2] for job in jobs] == [[f"db={db}", f"net={net}"] for db in "ab" for net in "sl"]


def test_values_of_the_command_line_count_too(sampled):
    assert sampled([["free", [1, 2]]], "typed.color=RED,BLUE", "+n=range(0,100)") == [
        ["typed.color=RED", "+n=0", "free=1"],
        ["typed.color=BLUE", "+n=0", "free=1"],
    ]


def test_a_key_that_contains_another_is_part_of_the_structure(sampled):
    grid = [["+m", [{"a": 1}, None, {"b": 2}]], ["+m.a", [3, 4]]]
    assert [job[0] for job in sampled(grid)] == ["+m={a:1}", "+m=null", "+m={b:2}"]


def test_alternatives_with_different_keys_are_each_composed(sampled):
    assert sampled([["free", [1, 2]], {"+a": [1, 2]}, {"+b": [1, 2]}]) == [
        ["free=1", "+a=1"],
        ["free=1", "+b=1"],
    ]
