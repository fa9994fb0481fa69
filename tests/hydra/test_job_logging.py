"""Logging set up quickly is what dictConfig sets up."""

import copy
import logging
import logging.config

import pytest
from omegaconf import OmegaConf

from hydra_plugins.hydra_junky_launcher._copies import copy_template
from hydra_plugins.hydra_junky_launcher._isolation import scratch_job
from hydra_plugins.hydra_junky_launcher._job_logging import configure_quickly, resolve_quickly


def a_config(path):
    return {
        "version": 1,
        "formatters": {"simple": {"format": "[%(levelname)s] %(message)s"}},
        "handlers": {
            "file": {
                "class": "logging.FileHandler",
                "formatter": "simple",
                "filename": str(path),
                "level": "WARNING",
            },
            "console": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout"},
        },
        "root": {"level": "INFO", "handlers": ["console", "file"]},
        "disable_existing_loggers": False,
    }


def found(path):
    """Return what a job's logging looks like, and what it writes."""
    off = logging.getLogger("test_job_logging.off")
    off.warning("from a logger that was disabled")
    root = logging.getLogger()
    handlers = [
        (
            type(handler),
            handler.name,
            handler.level,
            getattr(handler, "stream", None) if type(handler) is logging.StreamHandler else "",
            handler.formatter and (handler.formatter._fmt, handler.formatter.datefmt),
            getattr(handler, "mode", None),
            getattr(handler, "encoding", None),
        )
        for handler in root.handlers
    ]
    return root.level, handlers, off.disabled, path.read_text()


def configured(configure, config, path):
    with scratch_job():
        logging.getLogger().addHandler(logging.NullHandler())
        configure(copy.deepcopy(config))
        return found(path)


@pytest.fixture
def disabled():
    logger = logging.getLogger("test_job_logging.off")
    logger.disabled = True
    yield
    logger.disabled = False


def test_the_outcome_is_dictconfigs(tmp_path, disabled):
    calls = []

    def plain(config):
        calls.append(config)
        logging.config.dictConfig(config)

    quick = configure_quickly(plain)
    outcomes = []
    for num in range(3):
        path = tmp_path / f"{num}.log"
        outcomes.append(configured(quick, a_config(path), path))
    path = tmp_path / "plain.log"
    expected = configured(logging.config.dictConfig, a_config(path), path)
    assert outcomes == [expected] * 3
    assert len(calls) == 1  # for the first of that shape
    assert "from a logger" in expected[3]


@pytest.mark.parametrize(
    "change",
    [
        {"disable_existing_loggers": True},
        {"loggers": {"x": {"level": "INFO"}}},
        {"filters": {}},
        {"incremental": False},
        {"root": {"level": "INFO", "filters": []}},
        {"formatters": {"simple": {"format": "x", "style": "$"}}},
        {"formatters": {"simple": {"class": "logging.Formatter", "format": "x"}}},
        {"handlers": {"console": {"class": "logging.NullHandler"}}},
        {"handlers": {"console": {"class": "logging.StreamHandler", "stream": "cfg://x"}}},
        {"formatters": {"simple": {"format": "ext://sys.platform"}}},
    ],
    ids=str,
)
def test_anything_else_is_dictconfigs_business(tmp_path, change):
    calls = []
    quick = configure_quickly(calls.append)
    with scratch_job():
        for _ in range(2):
            quick({**a_config(tmp_path / "x.log"), **change})
    assert len(calls) == 2


def test_the_processs_own_logging_is_left_to_dictconfig(tmp_path):
    calls = []
    quick = configure_quickly(calls.append)
    for _ in range(2):
        quick(a_config(tmp_path / "x.log"))
    assert len(calls) == 2


def test_an_error_is_dictconfigs(tmp_path):
    quick = configure_quickly(logging.config.dictConfig)
    with scratch_job():
        quick(a_config(tmp_path / "x.log"))
        with pytest.raises(ValueError, match="Unable to configure handler 'file'"):
            quick(a_config(tmp_path / "no" / "x.log"))


def a_late_section(filename="${where}/${hydra.name}.log"):
    template = OmegaConf.create(
        {
            "where": "here",
            "box": {"x": 1},
            "hydra": {
                "name": "app",
                "job_logging": {
                    "root": {"handlers": ["file"]},
                    "handlers": {"file": {"filename": filename}},
                },
            },
        }
    )
    return template, copy_template(template)


@pytest.mark.parametrize(
    ("filename", "quickly"),
    [
        ("${where}/${hydra.name}.log", True),
        ("${where}", True),
        ("plain.log", True),
        ("${box}", False),
        ("???", True),
    ],
)
def test_a_configuration_is_resolved_as_hydra_resolves_it(filename, quickly):
    got, asked = [], []
    template, _ = a_late_section(filename)
    quick = resolve_quickly(lambda config, *_: asked.append(config), got.append)
    for where in ("here", "there"):
        config = copy_template(template)
        config.where = where
        quick(config.hydra.job_logging, False)
        expected = OmegaConf.to_container(config.hydra.job_logging, resolve=True)
        assert got == ([expected] if quickly else [])
        assert asked == ([] if quickly else [config.hydra.job_logging])
        got.clear()
        asked.clear()


@pytest.mark.parametrize("verbose", [True, "a.logger"])
def test_verbose_is_hydras_business(verbose):
    asked = []
    _, config = a_late_section()
    resolve_quickly(lambda *args: asked.append(args), asked.append)(
        config.hydra.job_logging, verbose
    )
    assert asked == [(config.hydra.job_logging, verbose)]


def test_a_section_that_was_changed_is_hydras_business():
    asked = []
    _, config = a_late_section()
    config.hydra.job_logging.root.handlers = []
    resolve_quickly(lambda *args: asked.append(args), asked.append)(config.hydra.job_logging, False)
    assert asked == [(config.hydra.job_logging, False)]
