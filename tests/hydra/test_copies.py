"""Copies of configs that are filled in when they are looked at."""

import copy
import pickle
import threading

import pytest
from omegaconf import OmegaConf, open_dict, read_write

from hydra_plugins.hydra_junky_launcher._compose import same_config
from hydra_plugins.hydra_junky_launcher._copies import (
    copy_config,
    copy_hydra_only,
    copy_task,
    copy_template,
    pristine,
)
from hydra_plugins.hydra_junky_launcher._yaml_text import yaml_text


def a_template():
    return OmegaConf.create(
        {
            "a": 1,
            "b": {"c": "${hydra.job.num}"},
            "hydra": {
                "job": {"num": 3, "config": {"deep": [1, {"x": "${a}"}]}},
                "help": {"text": "one\ntwo", "none": None, "gone": "???"},
                "run": {"dir": "${hydra.help.text}"},
                "empty": {},
            },
        },
        flags={"struct": True},
    )


@pytest.fixture
def template():
    config = a_template()
    yield config
    assert same_config(config, a_template())  # never changed


def test_a_late_copy_is_the_template_to_who_looks(template):
    assert same_config(copy_template(template), copy.deepcopy(template))
    assert copy_template(template) == template
    assert copy_template(template).b.c == 3
    assert copy_template(template).hydra.job.config.deep[1].x == 1
    assert OmegaConf.to_yaml(copy_template(template)) == OmegaConf.to_yaml(template)


def test_nothing_is_copied_before_its_turn(template):
    new = copy_template(template)
    assert pristine(new.hydra._get_node("job")) is template.hydra.job
    assert new.hydra.job.num == 3
    assert pristine(new.hydra._get_node("job")) is None
    assert pristine(new.hydra.job._get_node("config")) is template.hydra.job.config
    assert pristine(new.hydra._get_node("help")) is template.hydra.help


def test_a_copy_of_a_late_copy_is_its_own(template):
    first = copy_template(template)
    first.hydra.job.num = 4
    second = copy_config(first)
    second.hydra.job.num = 5
    second.hydra.help.none = 6
    assert (first.hydra.job.num, first.hydra.help.none) == (4, None)
    assert second.hydra.help._get_parent() is second.hydra
    assert same_config(copy_config(second), copy.deepcopy(second))


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))]
)
def test_other_copies_are_plain(template, again):
    late = copy_template(template)
    new = again(late.hydra.help)
    assert type(new._content) is dict
    assert new == template.hydra.help
    assert again(late) == template


def test_changes_of_the_mapping_itself_come_after_it_is_filled(template):
    def changed(config):
        with read_write(config), open_dict(config):
            config.hydra.help.new = 1
            del config.hydra.job["num"]
            config.hydra.run = {"dir": "x", "more": 1}
            OmegaConf.update(config, "hydra.help", {"text": "t"}, merge=True)
            config.hydra.job.pop("config")
        return config

    assert same_config(changed(copy_template(template)), changed(copy.deepcopy(template)))


def test_flags_reach_what_is_not_filled_yet(template):
    new = copy_template(template)
    OmegaConf.set_readonly(new.hydra, True)
    assert OmegaConf.is_readonly(new.hydra.help)
    OmegaConf.set_readonly(new.hydra, False)
    new.hydra.help.none = 1


def test_threads_that_look_at_once_see_one_mapping(template):
    for _ in range(50):
        new = copy_template(template)
        start = threading.Barrier(4)
        seen = []

        def look(new=new, start=start, seen=seen):
            start.wait()
            seen.append(new.hydra.job._get_node("config"))

        threads = [threading.Thread(target=look) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({id(node) for node in seen}) == 1


def test_the_task_copy_is_what_is_left_without_hydra(template):
    def without(config):
        with read_write(config), open_dict(config):
            del config["hydra"]
        return config

    assert same_config(without(copy_task(template)), without(copy.deepcopy(template)))


def test_yaml_of_late_copies_is_omegaconfs(template):
    for num in range(3):
        new = copy_template(template)
        new.hydra.job.num = num
        part = copy_hydra_only(new)
        assert yaml_text(part) == OmegaConf.to_yaml(OmegaConf.masked_copy(new, "hydra"))
    other = a_template()
    other.hydra.run.dir = "elsewhere"
    part = copy_hydra_only(copy_template(other))
    assert "elsewhere" in yaml_text(part)
