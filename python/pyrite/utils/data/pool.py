"""The main process's side of DataLoader workers: starting, feeding, watching and ending them."""

import os
import select
import time
import weakref

from . import worker
from .transport import channel_pair

_GRACE = 1.0  # seconds a worker may take to finish what it is doing when the loader ends


class WorkerPool:
    """``n`` worker processes and their channels. Ends with :meth:`shutdown`, garbage collection, or the program."""

    def __init__(self, context, n, make_spec):
        self.channels = []
        self.processes = []
        self.poll = select.poll()
        self.by_fd = {}
        # The finaliser must not refer to the pool itself.
        self._finalizer = weakref.finalize(self, _end, self.channels, self.processes, _GRACE, os.getpid())
        try:
            for i in range(n):
                self._start(context, i, make_spec(i))
        except BaseException:
            self.shutdown(0.0)
            raise

    def _start(self, context, i, spec):
        import warnings

        ours, theirs = channel_pair()
        worker.parent_ends.add(ours)
        self.channels.append(ours)
        process = context.Process(target=worker.main, args=(theirs, spec), daemon=True, name=f"pyrite-worker-{i}")
        with warnings.catch_warnings():
            # Forking beside the core's threads is safe: they hold no lock then and are rebuilt in the child.
            warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
            process.start()
        theirs.close()
        self.processes.append(process)
        self.poll.register(ours.fileno(), select.POLLIN)
        self.by_fd[ours.fileno()] = (i, True)
        self.poll.register(process.sentinel, select.POLLIN)
        self.by_fd[process.sentinel] = (i, False)

    def send(self, i, command):
        """Sends a command to worker ``i``; RuntimeError if it is dead."""
        try:
            self.channels[i].send(command)
        except (BrokenPipeError, ConnectionResetError):
            raise self._dead(i) from None

    def receive(self, timeout):
        """Messages that have arrived, at least one: ``(worker, message)``.

        RuntimeError at once if any worker died, or after ``timeout`` seconds (None: no limit).
        """
        events = self.poll.poll(None if timeout is None else max(0, int(timeout * 1000)))
        if not events:
            raise RuntimeError(f"DataLoader timed out after {timeout} seconds")
        messages, dead = [], None
        for fd, _ in events:
            i, is_channel = self.by_fd[fd]
            if not is_channel:
                dead = i if dead is None else dead
                continue
            try:
                messages.append((i, self.channels[i].recv()))
            except (EOFError, ConnectionResetError):
                raise self._dead(i) from None
        # What a worker sent before it died is delivered first; its death is noticed by the next call.
        if dead is not None and not messages:
            raise self._dead(dead)
        return messages

    def _dead(self, i):
        process = self.processes[i]
        process.join(1.0)
        code = process.exitcode
        if code is not None and code < 0:
            import signal

            text = f"DataLoader worker (pid {process.pid}) is killed by signal: {signal.strsignal(-code)}."
            if -code == signal.SIGKILL:
                text += " The system may have run out of memory."
        else:
            text = f"DataLoader worker (pid(s) {process.pid}) exited unexpectedly with exit code {code}"
        return RuntimeError(text)

    def shutdown(self, grace=_GRACE):
        """Ends all workers: asks, then terminates, then kills. Safe to call twice."""
        if self._finalizer.detach() is not None:
            _end(self.channels, self.processes, grace, os.getpid())


def _end(channels, processes, grace, owner):
    if os.getpid() != owner:
        return  # a forked child holds a copy of the pool; the processes are not its own
    for channel in channels:
        try:
            channel.send(("stop",))
        except OSError:
            pass
    deadline = time.monotonic() + grace
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
    for force in ("terminate", "kill"):
        alive = [p for p in processes if p.is_alive()]
        for process in alive:
            getattr(process, force)()
        deadline = time.monotonic() + 1.0
        for process in alive:
            process.join(max(0.0, deadline - time.monotonic()))
    for channel in channels:
        channel.close()
