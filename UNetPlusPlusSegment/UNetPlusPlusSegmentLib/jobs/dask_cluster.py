"""Cohorts on a Dask cluster; each of its processes keeps one worker. Needs `distributed`; no torch."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from .child_process import python_executable
from .cohort import CohortError, Runner, Todo, failed, outcome_of
from .worker_client import Worker

if TYPE_CHECKING:
    from distributed import Client, SpecCluster, as_completed

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

    def run(todo: Sequence[Todo]) -> Iterator[tuple[str, dict]]:
        if not todo:
            return iter(())
        try:
            return _outcomes(Client(address, timeout=CONNECT_S, set_as_default=False), todo)
        except (OSError, ValueError) as error:
            raise CohortError(f"No Dask scheduler answers at {address}: start one, or correct the address.") from error

    return run


def on_this_computer(workers: int) -> Runner:
    """Run several cases at once on this computer, on a Dask cluster that is started for the cohort and closed after it.

    Each process gets an equal share of the cores and, if there are graphics cards, one of them.

    Args:
        workers: Number of processes, 1 or more.

    Raises:
        CohortError: `distributed` is not installed, or the number is less than 1.
    """
    if workers < 1:
        raise CohortError(f"The number of workers must be 1 or more; got {workers}.")
    try:
        import dask.config
        import distributed  # noqa: F401
    except ImportError as error:
        raise CohortError("Dask is not installed. Run: pip install distributed, or leave --workers out.") from error

    def run(todo: Sequence[Todo]) -> Iterator[tuple[str, dict]]:
        if not todo:
            return
        # By default, Dask gives up a process that has died if it takes more than 15 s to start again, as it may on a busy computer.
        patient = dask.config.set({"distributed.deploy.lost-worker-timeout": "1 day"})
        with patient, _cluster_here(min(workers, len(todo))) as cluster:
            yield from on_cluster(cluster.scheduler_address)(todo)

    return run


def _cluster_here(workers: int) -> SpecCluster:
    """A local cluster of `workers` processes, each with its share of the cores and, if there are any, one of the graphics cards."""
    from dask.system import CPU_COUNT  # without the cores that a container or taskset keeps from this process
    from distributed import Nanny, Scheduler, SpecCluster

    multiprocessing.set_executable(python_executable())  # inside Slicer, sys.executable is Slicer itself
    logging.getLogger("distributed").setLevel(logging.WARNING)  # it reports every start and end of a process
    cards, threads = graphics_cards(), max(1, CPU_COUNT // workers)
    processes = {}
    for number in range(workers):
        environment = {"DASK_LOGGING__DISTRIBUTED": "warning"}
        if cards:
            environment["CUDA_VISIBLE_DEVICES"] = cards[number % len(cards)]
        options = {"nthreads": threads, "host": "127.0.0.1", "dashboard": False, "env": environment}
        processes[number] = {"cls": Nanny, "options": options}
    # Any free port, because Dask warns if its usual one is taken, by another cohort for instance.
    scheduler_options = {"host": "127.0.0.1", "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    scheduler = {"cls": Scheduler, "options": scheduler_options}
    return SpecCluster(workers=processes, scheduler=scheduler)


def graphics_cards() -> list[str]:
    """The NVIDIA graphics cards that this process may use, as named in `CUDA_VISIBLE_DEVICES`."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [card.strip() for card in visible.split(",") if card.strip()]
    asked = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True, timeout=CONNECT_S).stdout.split()
    except (OSError, subprocess.SubprocessError):  # no card, or no driver
        return []


def _outcomes(client: Client, todo: Sequence[Todo]) -> Iterator[tuple[str, dict]]:
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
        return outcome_of(todo._replace(parts=parts), _worker)
