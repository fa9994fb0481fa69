"""One fork server for all tests of the launcher: each one takes seconds to import torch."""

import functools

import pytest

# What needs torch is imported late: some tests in this folder run without it.


@pytest.fixture(scope="session")
def fork_server():
    from junky_core.executors.processes.fork_server import ForkServer

    with ForkServer(["hydra_plugins.hydra_junky_launcher._job_processes"]) as server:
        yield server


@pytest.fixture
def shared_server(fork_server, monkeypatch):
    """Let sweeps in worker processes use the server that is there."""
    from junky_core.executors import factory
    from junky_core.executors.kinds import ExecutorKind
    from junky_core.executors.processes.executor import ProcessExecutor

    plain = factory.executor_factory

    def executor_factory(kind, *, preload=(), **options):
        if kind is ExecutorKind.PROCESSES:
            return functools.partial(ProcessExecutor, server=fork_server, **options)
        return plain(kind, preload=preload, **options)

    monkeypatch.setattr(
        "hydra_plugins.hydra_junky_launcher._core.executor_factory", executor_factory
    )
