"""Cohorts on a Dask cluster; each of its processes keeps one worker. Needs `distributed`; no torch."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .child_process import ChildProcess, python_executable
from .cohort import CohortError, Outcomes, Runner, Todo, failed, outcome_of
from .worker_client import Worker

if TYPE_CHECKING:
    from distributed import Client, as_completed

CONNECT_S = 15
WORKER_S = 10  # without a worker for this long, the user is told
LOOK_S = 0.5
_log = logging.getLogger(__name__)
_one_at_a_time = threading.Lock()  # a process may have several threads, which share its CPU or graphics card
_worker: Worker | None = None


def on_cluster(address: str) -> Runner:
    """Run the cases on the cluster of a Dask scheduler: LocalCluster, SSH, Slurm, Kubernetes.

    Its processes need this package, and must see inputs, models and results under the same paths. If a process dies, another one
    runs its case. If all cases are done, the cluster is not contacted.

    Args:
        address: Address of the scheduler, such as `tcp://host:8786`.

    Raises:
        CohortError: `distributed` is not installed; or, when the runner is called, no scheduler answers.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise CohortError("Dask is not installed. Run: pip install distributed, or leave --dask out.") from error

    def run(todo: Sequence[Todo]) -> Outcomes:
        if not todo:
            return (each for each in list[tuple[str, dict]]())
        try:
            return _outcomes(Client(address, timeout=CONNECT_S, set_as_default=False), todo)
        except (OSError, ValueError) as error:
            raise CohortError(f"No Dask scheduler answers at {address}: start one, or correct the address.") from error

    return run


def on_this_computer(workers: int) -> Runner:
    """Run several cases at once on this computer, on a Dask cluster that is started for the cohort and ended after it.

    Each process gets an equal share of the cores and, if there are graphics cards, one of them.

    Args:
        workers: Number of processes, 1 or more.

    Raises:
        CohortError: `distributed` is not installed, or the number is less than 1; or, when the runner is called, no cluster starts.
    """
    if workers < 1:
        raise CohortError(f"The number of workers must be 1 or more; got {workers}.")
    try:
        import distributed  # noqa: F401
    except ImportError as error:
        raise CohortError("Dask is not installed. Run: pip install distributed, or leave --workers out.") from error

    def run(todo: Sequence[Todo]) -> Outcomes:
        if not todo:
            return
        with _cluster_here(min(workers, len(todo))) as address:
            yield from on_cluster(address)(todo)

    return run


@contextlib.contextmanager
def _cluster_here(workers: int) -> Iterator[str]:
    """Start the process of a cluster, yield the address of its scheduler, and end it with all its processes."""
    command = [python_executable(), "-m", f"{__package__}.dask_main", str(workers)]
    with tempfile.TemporaryDirectory(prefix="unetpp-dask-", ignore_cleanup_errors=True) as folder:
        process = ChildProcess(command, Path(folder))
        try:
            yield _address_from(process)
        finally:
            process.dismiss()


def _address_from(process: ChildProcess) -> str:
    while True:
        for line in process.received():
            if line is None:
                raise CohortError(f"The process of the Dask cluster {process.how_it_ended()[1]}. Run the cohort again.")
            if line.startswith("tcp://"):
                return line.strip()
        time.sleep(LOOK_S)


def _outcomes(client: Client, todo: Sequence[Todo]) -> Outcomes:
    """Run the cases on a cluster, yield each as it ends, and close the client.

    Raises:
        CohortError: The scheduler has gone.
    """
    from distributed import as_completed

    with client:
        address = client.scheduler_info()["address"]
        cases = {client.submit(_do, each, pure=False): each.case for each in todo}
        ended = as_completed(cases, loop=client.loop)
        while not ended.is_empty():
            _wait_for_one(ended, client, address)
            future = next(ended)
            if future.cancelled():
                raise CohortError(
                    f"The Dask scheduler at {address} has gone: start one, and run the cohort again. Finished cases are kept."
                )
            error = future.exception()  # an error of Dask, for instance because its process died repeatedly
            yield cases[future], future.result() if error is None else failed(error)


def _wait_for_one(ended: as_completed, client: Client, address: str) -> None:
    """Wait until a case has ended; log a warning if the cluster has no worker. It may get one, so the run goes on."""
    alone_since, told = time.monotonic(), False
    while not ended.has_ready():
        with contextlib.suppress(OSError):  # if the scheduler has gone, all cases end
            if client.scheduler_info()["workers"]:
                alone_since, told = time.monotonic(), False
        if not told and time.monotonic() - alone_since > WORKER_S:
            told = True
            _log.warning("The Dask scheduler at %s has no worker: start one with `dask worker %s`.", address, address)
        time.sleep(LOOK_S)


def _do(todo: Todo) -> dict:
    """Run one case in a process of the cluster."""
    global _worker
    from distributed import get_worker

    cores = get_worker().state.nthreads  # the share of the cores that Dask gave this process
    parts = tuple((folder, replace(asked, threads=asked.threads or cores)) for folder, asked in todo.parts)
    with _one_at_a_time:
        _worker = _worker or Worker()
        return outcome_of(todo._replace(parts=parts), _worker, is_wanted=_is_wanted)


def _is_wanted() -> bool:
    """False once the cohort was cancelled: Dask cannot stop a case that has begun, and the next run may be writing the same files."""
    from distributed import get_worker

    worker = get_worker()
    task = worker.state.tasks.get(worker.get_current_task())
    return task is not None and task.state != "cancelled"
