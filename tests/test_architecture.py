"""The layout holds: imports run one way, and the package's listing is short."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"


def test_imports_keep_the_contracts_of_pyproject():
    pytest.importorskip("importlinter")
    command = [sys.executable, "-c", LINT, "--no-cache", "--no-logo"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Contracts: 4 kept, 0 broken." in ended.stdout


def test_the_listing_of_the_package_is_short():
    here = [path for path in (ROOT / "junky_core").iterdir() if path.name != "__pycache__"]
    assert sum(path.is_dir() for path in here) <= 10
    assert sum(path.suffix == ".py" for path in here) <= 10


def test_the_page_names_files_that_exist():
    page = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    roots = [ROOT, ROOT / "junky_core", ROOT / "hydra_plugins"]
    paths = re.findall(r"`((?:\w+/)*\w+\.py|(?:\w+/)+)`", page)
    plugins = [path.stem for path in (ROOT / "hydra_plugins").glob("*/*.py")]
    missing = [path for path in paths if not any((root / path).exists() for root in roots)]
    missing += [name for name in re.findall(r"`\.\.(_\w+)`", page) if name not in plugins]
    assert not missing
