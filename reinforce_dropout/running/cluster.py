"""Runs of a sweep on the workers of a Dask cluster, which need not share a disk with the caller.

Each run is a task that trains in a process of its own on the worker, see `apart`. It reports
through an event topic. It leaves its newest checkpoint on the scheduler, in a Variable. The caller
copies it from there. If the worker dies, another one goes on from it.
"""

import contextlib
import importlib.metadata
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from reinforce_dropout.errors import RecordError, RecordInUseError, SweepError
from reinforce_dropout.results import records
from reinforce_dropout.running import apart
from reinforce_dropout.running.apart import Outcome

SECONDS_TO_ANSWER = 10
SECONDS_BETWEEN_COPIES = 30.0
"""A checkpoint goes to the scheduler at most this often, because it has megabytes."""

_DISTRIBUTION = "reinforce-dropout"
_VERSION = importlib.metadata.version(_DISTRIBUTION)


@contextlib.contextmanager
def workers(address, jobs, tell):
    """Start jobs on a cluster, and yield a function that lets all runs save and end.

    Parameters
    ----------
    address : str
        Of the scheduler, as in ``tcp://host:8786``.
    jobs : dict from str to dict
        By the name of the run, see `apart.run`; longest first.
    tell : callable
        ``tell(name, message)``, called from any thread, with an `Outcome` or a message for
        `apart.show`.

    Raises
    ------
    SweepError
        Dask is not installed, the scheduler does not answer, or a worker lacks our version.
    """
    client = connect(address)
    with contextlib.ExitStack() as stack:
        stack.enter_context(client)
        refuse_unfit(client)
        yield _Sweep(client, tell, stack).start(jobs)


def connect(address):
    """Return a client of the scheduler at an address."""
    try:
        import distributed
    except ImportError:
        raise SweepError(
            "--scheduler needs Dask, which is not installed: pip install 'reinforce-dropout[dask]'."
        ) from None
    try:
        return distributed.Client(address, timeout=SECONDS_TO_ANSWER, set_as_default=False)
    except Exception as error:  # another server can answer with anything
        raise SweepError(
            f"no Dask scheduler answers at {address} within {SECONDS_TO_ANSWER} s: check the "
            "address and that the scheduler runs."
        ) from error


def refuse_unfit(client):
    """Refuse workers that lack this package, or have another version of it."""
    # A function of the standard library, because ours cannot be loaded without the package.
    found = client.run(importlib.metadata.version, _DISTRIBUTION, on_error="return")
    for worker, version in found.items():
        if isinstance(version, Exception):
            raise SweepError(f"the worker {worker} lacks {_DISTRIBUTION}: install it there.")
        if version != _VERSION:
            raise SweepError(_other_version(worker, version, _VERSION))


def _other_version(worker, version, callers):
    return (
        f"the worker {worker} has {_DISTRIBUTION} {version} and the caller {callers}: "
        "install the same version there."
    )


class _Sweep:
    """The caller's side: it keeps what the tasks send in the caller's folder."""

    def __init__(self, client, tell, stack):
        import distributed

        self.client, self.tell, self.stack = client, tell, stack
        self.topic = f"sweep-{time.time_ns()}"
        self.stop = distributed.Event(f"{self.topic}-stop", client)
        self.paths = {}  # of the runs that have not ended
        # One thread writes all files, in order, because the client's own thread must not wait.
        self.writer = stack.enter_context(ThreadPoolExecutor(1))

    def start(self, jobs):
        """Submit all jobs, and return the function that stops them."""
        self.client.subscribe_topic(self.topic, self._hear)
        futures = []
        for i, (name, job) in enumerate(jobs.items()):
            try:
                # Until the sweep ends, because the caller writes the workers' records.
                self.stack.enter_context(records.lock(job["path"]))
                path = Path(job["path"])
                if path.exists():
                    _checkpoint(self.client, self.topic, name).set(path.read_bytes())
            except RecordInUseError as error:
                self.tell(name, Outcome("busy", str(error)))
                continue
            except (RecordError, OSError) as error:
                self.tell(name, Outcome("failed", str(error)))
                continue
            self.paths[name] = path
            future = self.client.submit(
                on_worker, name, job, self.topic, _VERSION, SECONDS_BETWEEN_COPIES,
                key=f"{self.topic}-{name}", priority=-i, pure=False,
            )  # fmt: skip
            future.add_done_callback(lambda future, name=name: self._ended(name, future))
            futures.append(future)
        self.stack.callback(self.client.cancel, futures)
        return self.stop.set

    def _hear(self, event):
        """Receive a task's message, in the client's own thread."""
        message = dict(event[1])
        name = message.pop("name")
        if message.pop("copied", False):
            self.writer.submit(self._keep_checkpoint, name)
        else:
            self.tell(name, message)

    def _keep_checkpoint(self, name):
        if name in self.paths:
            with contextlib.suppress(TimeoutError, RecordError):  # the next one will do
                _keep(self.paths[name], _checkpoint(self.client, self.topic, name).get(timeout=10))

    def _ended(self, name, future):
        # In the writer's thread, so an earlier checkpoint cannot replace the last record.
        self.writer.submit(self._keep_result, name, future)

    def _keep_result(self, name, future):
        path = self.paths.pop(name)
        try:
            how, text, image = future.result()
            if image is not None:
                _keep(path, image)
            _checkpoint(self.client, self.topic, name).delete()
            outcome = Outcome(how, text)
        except RecordError as error:
            outcome = Outcome("failed", str(error))
        except BaseException as error:  # the cluster can raise anything, also CancelledError
            outcome = Outcome("failed", f"the cluster lost it ({error or type(error).__name__}).")
        self.tell(name, outcome)


def _checkpoint(client, topic, name):
    import distributed

    return distributed.Variable(f"{topic}-{name}", client)


def _keep(path, image):
    """Write a record that a worker has sent, after reading it to see that it is whole."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        copy.write_bytes(image)
        record = records.read(copy)
    records.write(path, record)


def on_worker(name, job, topic, version, seconds_between_copies):
    """Train one run on a worker: the task itself.

    Parameters
    ----------
    name : str
    job : dict
        See `apart.run`; ``path`` is the caller's, and only named in messages.
    topic : str
    version : str
        Of the caller's package.
    seconds_between_copies : float

    Returns
    -------
    how, text : str
        See `apart.Outcome`.
    image : bytes or None
        The record, if an epoch has ended.
    """
    import distributed

    worker, client = distributed.get_worker(), distributed.get_client()
    if version != _VERSION:
        return "failed", _other_version(worker.address, _VERSION, version), None
    key = worker.get_current_task()
    stop = distributed.Event(f"{topic}-stop", client)
    checkpoint = _checkpoint(client, topic, name)
    with tempfile.TemporaryDirectory(dir=worker.local_directory) as folder:
        path = Path(folder) / Path(job["path"]).name
        # There is one if the caller had one, or if another worker has died.
        with contextlib.suppress(TimeoutError):
            path.write_bytes(checkpoint.get(timeout=0.1))
        copied, copied_at = _written(path), time.monotonic()

        def tell(message):
            nonlocal copied, copied_at
            worker.log_event(topic, {"name": name, **message})
            due = time.monotonic() - copied_at >= seconds_between_copies
            if due and _written(path) != copied:
                copied, copied_at = _written(path), time.monotonic()
                checkpoint.set(path.read_bytes())
                worker.log_event(topic, {"name": name, "copied": True})

        def called_off():
            # The scheduler has done that if the caller has died.
            task = worker.state.tasks.get(key)
            return task is None or task.state != "executing"

        how, text = apart.run(
            job | {"path": str(path)}, tell, lambda: 1, lambda: stop.is_set() or called_off()
        )
        if called_off():
            checkpoint.delete()
        text = text.replace(str(path), job["path"])
        return how, text, path.read_bytes() if path.exists() else None


def _written(path):
    return path.stat().st_mtime_ns if path.exists() else None
