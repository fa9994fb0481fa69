"""The claims of pyproject.toml agree with the pins of the constraints files."""

import importlib.metadata
from collections import Counter
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
try:
    import tomllib

    PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
except ImportError:  # Python 3.10
    tomllib = None

pytestmark = pytest.mark.skipif(tomllib is None, reason="reads pyproject.toml with tomllib")

PLAIN, BENCH = ROOT / "constraints.txt", ROOT / "benchmarks" / "constraints.txt"


def pins(path, python="3.11"):
    """Return the requirements of a file that apply to a Python, by name."""
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    found = [Requirement(line) for line in lines if line]
    applying = [pin for pin in found if pin.marker is None or pin.marker.evaluate(minor(python))]
    names = Counter(canonicalize_name(pin.name) for pin in applying)
    assert not [name for name, count in names.items() if count > 1]
    return {canonicalize_name(pin.name): pin for pin in applying}


def minor(python):
    return {"python_version": python, "python_full_version": f"{python}.0"}


def claimed():
    prefix = "Programming Language :: Python :: 3."
    return [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if c.startswith(prefix)]


@pytest.mark.parametrize("python", claimed() if tomllib else [])
@pytest.mark.parametrize("path", [PLAIN, BENCH], ids=["constraints", "benchmarks"])
def test_each_pin_supports_each_python_that_it_applies_to(path, python):
    if path == BENCH and python == "3.10":
        pytest.skip("Optuna 5's own dependencies need Python 3.11; the file says so")
    refused = []
    for name, pin in pins(path, python).items():
        try:
            installed = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        needs = installed.metadata.get("Requires-Python")
        if needs and pin.specifier.contains(installed.version):
            supported = Requirement(f"x{needs}").specifier
            if not supported.contains(f"{python}.0"):
                refused.append(f"{pin} needs Python {needs}")
    assert refused == []


@pytest.mark.parametrize("python", claimed() if tomllib else [])
def test_each_python_has_one_pin_for_what_the_project_needs(python):
    extras = PROJECT["optional-dependencies"]
    wanted = [*PROJECT["dependencies"], *extras["example"], *extras["test"], *extras["dev"]]
    names = {canonicalize_name(Requirement(line).name) for line in wanted} - {"hydra-junky"}
    assert names <= set(pins(PLAIN, python))


def test_the_peers_are_pinned_separately():
    # Optuna 5 in constraints.txt would keep Hydra's Optuna sweeper out, which needs an older one.
    peers = {"hydra-joblib-launcher", "optuna", "ray", "sqlalchemy", "alembic"}
    assert not peers & set(pins(PLAIN))
    assert peers <= set(pins(BENCH))
    assert not set(pins(PLAIN)) & set(pins(BENCH))
