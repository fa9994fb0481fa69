import subprocess

import pytest
from fault_harness import Child


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """Results of undisturbed sweeps, by size."""
    known = {}

    def get(**options):
        key = tuple(sorted(options.items()))
        if key not in known:
            known[key] = Child(tmp_path_factory.mktemp("plain"), **options, epoch_s=0).run()
        return known[key]

    return get


@pytest.fixture
def small_disk(tmp_path):
    """A separate file system of 400 KiB, if this test may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)], capture_output=True
    )
    if made.returncode:
        pytest.skip("needs to mount a file system")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)
