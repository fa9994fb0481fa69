"""What all tests need of the process that runs them."""

import signal
import tempfile

import pytest

# A shell starts what runs in the background with Ctrl-C ignored, and children inherit that;
# tests send it to theirs.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _temporary_folder(tmp_path_factory):
    """Keep what killed programs leave in the system's temporary folder inside pytest's own."""
    folder = str(tmp_path_factory.mktemp("tmp"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", folder)
        yield


def pytest_collection_modifyitems(items):
    """Skip what needs a GPU where there is none."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    from junky_core.accelerators import visible_devices

    if not visible_devices():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a GPU: torch shows none here"))
