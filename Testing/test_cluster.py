"""Cohorts from the shell, and on a real Dask cluster on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from distributed import Client, LocalCluster

from Testing.support.bright import bright_bundle
from Testing.support.kills import shared_memory
from UNetPlusPlusSegmentLib import files
from UNetPlusPlusSegmentLib.cli.main import main
from UNetPlusPlusSegmentLib.core.request import Request
from UNetPlusPlusSegmentLib.jobs import dask_cluster, dask_main
from UNetPlusPlusSegmentLib.jobs.cohort import CohortError, Todo, one_after_the_other, run_cohort
from UNetPlusPlusSegmentLib.jobs.dask_cluster import on_cluster, on_this_computer
from UNetPlusPlusSegmentLib.jobs.manifest import read_manifest
from UNetPlusPlusSegmentLib.jobs.worker_client import Worker

AFFINE = np.diag([-2.0, -2.0, 3.0, 1.0])


def asked_of(bundle) -> Request:
    return Request(model=bundle.folder, device="cpu")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return bright_bundle(tmp_path_factory.mktemp("models") / "bright-v1.0.0")


@pytest.fixture
def cohort(tmp_path):
    """Three scans with blocks of different sizes, and a text file that calls itself one."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name, width in (("a", 10), ("b", 15), ("c", 20)):
        scan = np.random.default_rng(0).integers(-900, 50, (12, 40, 50), np.int16)
        scan[4:8, 8:25, 15 : 15 + width] = 90
        files.write_volume(folder / f"{name}.nrrd", scan, AFFINE)
    (folder / "broken.nrrd").write_text("not a volume")
    return folder


@pytest.fixture
def cluster():
    with LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None, host="127.0.0.1") as cluster:
        yield cluster


def volumes_ml(folder) -> list[tuple[str, str]]:
    lines = [line.split(",") for line in (folder / "measurements.csv").read_text().splitlines()]
    case, volume = lines[0].index("case"), lines[0].index("volume_ml")
    return [(line[case], line[volume]) for line in lines[1:]]


def test_a_cluster_gives_the_results_of_one_machine_although_one_of_its_processes_dies(
    bundle, cohort, cluster, tmp_path, capsys
):
    asked = ["cohort", "liver", str(cohort), "--model", str(bundle.folder), "--device", "cpu"]
    assert main([*asked, "-o", str(tmp_path / "here")]) == 1
    assert "1 of 4 cases failed" in capsys.readouterr().err

    def kill_one(done, total, case):
        if done == 1:
            os.kill(next(iter(cluster.workers.values())).process.process.pid, signal.SIGKILL)

    run = on_cluster(cluster.scheduler_address)
    records = run_cohort(run, cohort, tmp_path / "there", asked_of(bundle), kill_one)
    assert {each["case"]: each["status"] for each in records} == {
        "a": "done", "b": "done", "broken": "failed", "c": "done"
    }  # fmt: skip
    assert volumes_ml(tmp_path / "there") == volumes_ml(tmp_path / "here")
    for name in "abc":
        here, there = (files.read_volume(tmp_path / at / f"{name}.seg.nrrd")[0].array for at in ("here", "there"))
        np.testing.assert_array_equal(here, there)

    (cohort / "broken.nrrd").unlink()
    assert main([*asked, "-o", str(tmp_path / "there"), "--dask", cluster.scheduler_address, "--json"]) == 0
    assert [each["case"] for each in json.loads(capsys.readouterr().out)] == ["a", "b", "c"]
    lines = (tmp_path / "there" / "manifest.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["status"] for line in lines) == ["done", "done", "done", "failed", "gone"], (
        "once each"
    )


def test_nothing_starts_without_a_scheduler_but_none_is_needed_if_no_case_is_left(
    bundle, cohort, tmp_path, monkeypatch
):
    monkeypatch.setattr("UNetPlusPlusSegmentLib.jobs.dask_cluster.CONNECT_S", 0.5)
    case, out = cohort / "a.nrrd", tmp_path / "out"
    with pytest.raises(CohortError, match=r"No Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        run_cohort(on_cluster("tcp://127.0.0.1:9"), [case], out, asked_of(bundle))
    assert not out.exists()
    with Worker() as worker:
        done = run_cohort(one_after_the_other(worker), [case], out, asked_of(bundle))
    assert run_cohort(on_cluster("tcp://127.0.0.1:9"), [case], out, asked_of(bundle)) == done


@pytest.fixture
def warned(monkeypatch):
    """A function that sets what happens once a cluster has had no worker for half a second; what is said then is in its `said`."""
    monkeypatch.setattr(dask_cluster, "WORKER_S", 0.5)

    def then(act) -> None:
        def warning(text, *values):
            then.said.append(text % values)
            act()

        monkeypatch.setattr(dask_cluster._log, "warning", warning)

    then.said = []
    return then


def test_a_cohort_that_is_cancelled_writes_nothing_more(bundle, cohort, tmp_path):
    scan, _ = files.read_volume(cohort / "b.nrrd")
    for name in "abc":  # so that the next one is not done before the word of the cancelling has come
        files.write_volume(cohort / f"{name}.nrrd", np.tile(scan.array, (60, 1, 1)), AFFINE)

    def cancel(record):
        raise KeyboardInterrupt

    with LocalCluster(n_workers=1, threads_per_worker=3, dashboard_address=None, host="127.0.0.1") as cluster:
        run, cases = on_cluster(cluster.scheduler_address), [cohort / f"{name}.nrrd" for name in "abc"]
        with pytest.raises(KeyboardInterrupt):
            run_cohort(run, cases, tmp_path / "out", asked_of(bundle), ended=cancel)
        with Client(cluster) as client:
            while any(client.run(lambda dask_worker: len(dask_worker.active_threads)).values()):
                time.sleep(0.1)
    (done,) = read_manifest(tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").glob("*.seg.nrrd")] == [f"{done}.seg.nrrd"]


@pytest.mark.parametrize(
    "at_first",
    [
        pytest.param(0, id="that has none yet"),
        pytest.param(1, id="that has lost them", marks=pytest.mark.slow(reason="a process starts, and is missed")),
    ],
)
def test_a_cluster_without_workers_is_named_and_waited_for(bundle, cohort, tmp_path, warned, at_first):
    scan, _ = files.read_volume(cohort / "b.nrrd")
    large = np.tile(scan.array, (60, 1, 1))  # so that it is not done before its worker is lost
    files.write_volume(cohort / "b.nrrd", large, AFFINE)

    def lose(done, total, case):
        if done == 1:
            cluster.scale(0)

    with LocalCluster(n_workers=at_first, threads_per_worker=1, dashboard_address=None, host="127.0.0.1") as cluster:
        warned(lambda: cluster.scale(1))
        run, cases = on_cluster(cluster.scheduler_address), [cohort / f"{name}.nrrd" for name in "ab"[: 1 + at_first]]
        records = run_cohort(run, cases, tmp_path / "out", asked_of(bundle), lose)
        address = cluster.scheduler_address
    assert warned.said == [f"The Dask scheduler at {address} has no worker: start one with `dask worker {address}`."]
    assert {record["status"] for record in records} == {"done"}


def test_a_scheduler_that_goes_ends_the_run_and_no_case_is_called_failed(bundle, cohort, tmp_path, warned, monkeypatch):
    monkeypatch.setattr(dask_cluster, "CONNECT_S", 2)
    with LocalCluster(n_workers=0, dashboard_address=None, host="127.0.0.1") as cluster:
        warned(cluster.close)
        run = on_cluster(cluster.scheduler_address)
        with pytest.raises(CohortError, match=r"scheduler at .* has gone: .* Finished cases are kept"):
            run_cohort(run, cohort, tmp_path / "out", asked_of(bundle))
    assert not (tmp_path / "out").exists()


def descendants(words: str) -> list[int]:
    """The processes that this one has started, directly or not, with these words in their command line."""
    return [each.pid for each in psutil.Process().children(recursive=True) if words in " ".join(each.cmdline())]


@pytest.mark.slow(reason="its processes load torch twice; the test above kills one on a cluster")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="shared memory is looked for in /dev/shm")
def test_a_process_of_this_computer_that_dies_is_replaced_however_long_that_takes(
    bundle, cohort, tmp_path, monkeypatch
):
    def give_up(*_):
        raise AssertionError("no process is left")

    def kill_it(done, total, case):
        if done == 1:
            for pid in descendants("spawn_main"):
                os.kill(pid, signal.SIGKILL)

    monkeypatch.setattr(dask_cluster, "WORKER_S", 300)
    monkeypatch.setattr(dask_cluster._log, "warning", give_up)
    monkeypatch.setenv("DASK_DISTRIBUTED__DEPLOY__LOST_WORKER_TIMEOUT", "1ms")  # shorter than any start
    before, cases = shared_memory(), [cohort / f"{name}.nrrd" for name in "ab"]
    records = run_cohort(on_this_computer(1), cases, tmp_path / "out", asked_of(bundle), kill_it)
    assert [record["status"] for record in records] == ["done", "done"]
    assert not descendants("dask_main")
    deadline = time.monotonic() + 120
    while descendants("spawn_main") or shared_memory() - before:
        assert time.monotonic() < deadline, "something is left over"
        time.sleep(0.1)


CTRL_C_IN_THE_SHELL = """
import os, signal, sys
from UNetPlusPlusSegmentLib.cli import cohort
cohort._Lines.ended = lambda *_: os.killpg(0, signal.SIGINT)
from UNetPlusPlusSegmentLib.cli.main import shell
sys.exit(shell())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="groups of processes as in Unix")
def test_ctrl_c_ends_several_workers_with_a_word(bundle, cohort, tmp_path):
    asked = [
        "cohort",
        "liver",
        cohort,
        "-o",
        tmp_path / "out",
        "--model",
        bundle.folder,
        "--workers",
        "2",
        "--device",
        "cpu",
    ]
    command = [sys.executable, "-c", CTRL_C_IN_THE_SHELL, *map(str, asked)]
    done = subprocess.run(command, capture_output=True, text=True, start_new_session=True, check=False)
    assert (done.returncode, done.stderr) == (130, "4 of 4 cases to do\nunetpp-segment: cancelled.\n")


@pytest.mark.parametrize(
    ("visible", "workers", "given"),
    [
        pytest.param("3, GPU-5", 2, ["3", "GPU-5"], id="a card each"),
        pytest.param(
            "3,5", 3, ["3", "3", "5"], id="more processes than cards", marks=pytest.mark.slow(reason="a third process")
        ),
    ],
)
def test_on_one_computer_each_process_gets_a_graphics_card_and_its_worker_with_it(monkeypatch, visible, workers, given):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with dask_main.cluster(workers) as cluster, Client(cluster.scheduler_address) as client:
        seen = client.run(card_of_a_worker)
    assert sorted(seen.values()) == given


def test_on_one_computer_the_processes_share_out_the_cores_that_they_may_use(monkeypatch):
    monkeypatch.setattr(dask_main, "CPU_COUNT", 7)  # without those that a container or taskset keeps from it
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with dask_main.cluster(2) as cluster, Client(cluster.scheduler_address) as client:
        client.wait_for_workers(2)
        assert list(client.nthreads().values()) == [3, 3]


@pytest.mark.parametrize(("asked", "given"), [(None, 3), (1, 1)], ids=["its share", "what the user asked for"])
def test_a_process_of_a_cluster_runs_the_network_in_as_many_threads_as_its_share(monkeypatch, asked, given):
    monkeypatch.setattr("distributed.get_worker", lambda: SimpleNamespace(state=SimpleNamespace(nthreads=3)))
    monkeypatch.setattr(dask_cluster, "Worker", lambda: None)
    monkeypatch.setattr(dask_cluster, "_worker", None)
    monkeypatch.setattr(dask_cluster, "outcome_of", lambda todo, worker, is_wanted: {"parts": todo.parts})
    todo = Todo("a", Path("a.nrrd"), Path("out/a"), ((Path("model"), Request(threads=asked)),))
    ((_, request),) = dask_cluster._do(todo)["parts"]
    assert request.threads == given


def card_of_a_worker() -> str:
    """What the process that `Worker` starts sees of the graphics cards; runs in a process of the cluster."""
    import time
    from tempfile import TemporaryDirectory

    from UNetPlusPlusSegmentLib.jobs.child_process import ChildProcess

    with TemporaryDirectory() as folder:
        ask = "import os; print(os.environ.get('CUDA_VISIBLE_DEVICES', 'all'))"
        child = ChildProcess([sys.executable, "-c", ask], Path(folder))
        while not (lines := [*child.received()]):
            time.sleep(0.01)
        child.close()
    return lines[0].strip()


def test_the_graphics_cards_are_those_of_the_driver_unless_the_user_has_chosen(monkeypatch, tmp_path):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n[ $1 = --query-gpu=index ] && printf '0\\n1\\n'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert dask_main.graphics_cards() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert dask_main.graphics_cards() == ["1"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    assert dask_main.graphics_cards() == []
