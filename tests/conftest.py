"""What all tests need of the process that runs them."""

import signal

import pytest

# A shell starts what runs in the background with Ctrl-C ignored, and children inherit that;
# tests send it to theirs.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """Skip what needs a GPU where there is none."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    from junky_core.accelerators import visible_devices

    if not visible_devices():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a GPU: torch shows none here"))
