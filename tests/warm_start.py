"""Scripts in processes of their own that need not import torch.

Importing torch takes most of the time of a short sweep. One process imports it, and each script
then runs in a fork of that process. The fork has never run a sweep, and it ends as any script
does. For tests of what a sweep does; those of a whole process start ``python`` itself.
"""

import atexit
import contextlib
import functools
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile


class Process:
    """A script that runs: the part of ``subprocess.Popen`` that tests use."""

    def __init__(self, status):
        self._status = status  # gives the process id, then, when it ended, the return code
        self.pid = int(status.recv(20))
        self.returncode = None

    def poll(self):
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout=None):
        if self.returncode is None:
            self._status.settimeout(None)
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            self.returncode = int(self._status.recv(20))
            self._status.close()
        return self.returncode

    def send_signal(self, signum):
        if self.poll() is None:
            os.kill(self.pid, signum)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def start(arguments, stdout, stderr, module="junky_core.autotrain", cwd=None):
    """Start a script, given as for ``python``, in a fork of a process that imported the module."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    request = json.dumps([str(cwd or os.getcwd()), *map(str, arguments)]).encode()
    with theirs:
        files = [stdout.fileno(), stderr.fileno(), theirs.fileno()]
        socket.send_fds(_server(module), [request], files)
    return Process(ours)


def run(arguments, module, cwd=None):
    """Run a script to its end; return what it printed."""
    with tempfile.TemporaryFile("w+") as output:
        status = start(arguments, output, output, module, cwd).wait(300)
        output.seek(0)
        text = output.read()
    assert status == 0, text
    return text


@functools.cache
def _server(module):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        server = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno()), module],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    atexit.register(lambda: (ours.close(), server.wait()))  # it ends when nobody can ask it
    return ours


def serve(requests):
    """Fork for each request; return in the forks alone, with what to run."""
    ended, notify = os.pipe()
    os.set_blocking(notify, False)
    running = {}
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(notify)
    while True:
        ready, _, _ = select.select([requests, ended], [], [])
        if ended in ready:
            os.read(ended, 4096)
            while running and (gone := os.waitpid(-1, os.WNOHANG))[0]:
                with running.pop(gone[0]) as status, contextlib.suppress(BrokenPipeError):
                    status.send(str(os.waitstatus_to_exitcode(gone[1])).encode())
        if requests in ready:
            request, files, *_ = socket.recv_fds(requests, 65536, 3)
            if not request:
                sys.exit()
            stdout, stderr, status = files
            pid = os.fork()
            if pid:
                os.close(stdout)
                os.close(stderr)
                running[pid] = socket.socket(fileno=status)
                running[pid].send(str(pid).encode())
                continue
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.dup2(stdout, 1)
            os.dup2(stderr, 2)
            for end in (*files, ended, notify):
                os.close(end)
            for other in (requests, *running.values()):
                other.close()
            return json.loads(request)


if __name__ == "__main__":
    importlib.import_module(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the tests end their scripts
    folder, *sys.argv = serve(socket.socket(fileno=int(sys.argv[1])))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    sys.path[0] = os.path.dirname(sys.argv[0])
    runpy.run_path(sys.argv[0], run_name="__main__")
