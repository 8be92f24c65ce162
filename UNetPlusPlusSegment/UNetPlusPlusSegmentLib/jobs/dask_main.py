"""The process of the Dask cluster of `--workers`: `python -m UNetPlusPlusSegmentLib.jobs.dask_main 4`. Needs `distributed`; no torch.

It prints the address of the scheduler, and ends when stdin closes. It is not in the group of its parent, so that a Ctrl-C in the
shell reaches only the parent, which ends it with all of its processes.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, NoReturn

import dask
from dask.system import CPU_COUNT  # without the cores that a container or taskset keeps from this process
from distributed import Nanny, Scheduler, SpecCluster

from .pipes import take_pipes

DRIVER_S = 15


def main() -> None:
    """Run the cluster, with its temporary files in the current folder."""
    settings = {
        "temporary-directory": str(Path.cwd()),
        # By default, Dask gives up a process that has died if it takes more than 15 s to start again, as it may on a busy computer.
        "distributed.deploy.lost-worker-timeout": "1 day",
    }
    requests, answers = take_pipes()
    parent = threading.Thread(target=_end_with_parent, args=[requests])
    parent.start()
    with dask.config.set(settings):
        running = cluster(int(sys.argv[1]))
        answers.write(f"{running.scheduler_address}\n".encode("ascii"))
        answers.flush()
        parent.join()


def _end_with_parent(requests: IO[bytes]) -> NoReturn:
    """End at once when stdin closes: the cluster would wait for the cases that are being computed."""
    requests.read()
    for each in multiprocessing.active_children():
        each.terminate()
    os._exit(0)  # Python's resource tracker removes what is left in shared memory


def cluster(workers: int) -> SpecCluster:
    """A cluster of `workers` processes, each with its share of the cores and, if there are any, one of the graphics cards."""
    cards, threads = graphics_cards(), max(1, CPU_COUNT // workers)
    processes = {}
    for number in range(workers):
        environment = {"CUDA_VISIBLE_DEVICES": cards[number % len(cards)]} if cards else {}
        options = {"nthreads": threads, "host": "127.0.0.1", "dashboard": False, "env": environment}
        processes[number] = {"cls": Nanny, "options": options}
    # Any free port for its page, as the usual one may be taken, by another cohort for instance.
    about_scheduler = {"host": "127.0.0.1", "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    return SpecCluster(workers=processes, scheduler={"cls": Scheduler, "options": about_scheduler})


def graphics_cards() -> list[str]:
    """The NVIDIA graphics cards that this process may use, as named in `CUDA_VISIBLE_DEVICES`."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [card.strip() for card in visible.split(",") if card.strip()]
    asked = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True, timeout=DRIVER_S).stdout.split()
    except (OSError, subprocess.SubprocessError):  # no card, or no driver
        return []


if __name__ == "__main__":
    main()
