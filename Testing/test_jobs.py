"""Jobs in a real child process: the same masks as the engine's, and cancelled at any moment."""

import shutil
import sys
import time
from itertools import pairwise

import numpy as np
import pytest

from Testing.support.bright import bright_bundle
from Testing.support.worker_jobs import PATIENCE_S, alive, cpu_s, fails, fake, files_in, run, scan, until, works
from UNetPlusPlusSegmentLib.core.request import Request
from UNetPlusPlusSegmentLib.core.volume import Volume
from UNetPlusPlusSegmentLib.jobs import job_handler, worker_client
from UNetPlusPlusSegmentLib.jobs.arrays import ArrayFolder, save_array
from UNetPlusPlusSegmentLib.jobs.protocol import DeviceState, Failed, MapsReady, Progress, ResultReady
from UNetPlusPlusSegmentLib.jobs.worker_client import Worker

# What a job gives


def test_a_stray_file_in_the_folder_of_arrays_does_no_harm():
    folder = ArrayFolder()
    folder.put(1, "volume", np.zeros(3))
    (folder.path / "core").write_text("of a process that crashed")
    folder.sweep(under_way=())
    assert [each.name for each in folder.path.iterdir()] == ["core"]
    folder.remove()


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.dtype(">i2")])
def test_a_job_gives_what_the_engine_gives_voxel_for_voxel(worker, bundle, expected, temporary, dtype):
    # While it runs, the next one's volume lies there.
    before = worker.submit(scan(300), bundle, Request(device="cpu", speed="accurate"))
    job = worker.submit(scan(dtype=dtype), bundle, Request(device="cpu", speed="accurate"))
    handed_over = np.load(temporary / next(temporary.iterdir()).name / f"{job}-volume.npy", mmap_mode="r")
    worker.wait(before)
    assert handed_over.dtype == dtype
    *progress, done = run(worker, job)
    assert isinstance(done, ResultReady)
    found, own = done.result, expected.at()
    np.testing.assert_array_equal(found.labelmap, own.labelmap)
    assert 0 < found.labelmap.sum() < found.labelmap.size / 4
    assert found.labelmap.dtype == np.uint8
    for same in ("segments", "notes", "threshold", "model", "device", "scan_slices", "slices"):
        assert getattr(found, same) == getattr(own, same)
    assert [(p.phase, p.done, p.total) for p in progress] == [
        ("slices", n, 30) for n in (*range(9, 30, 9), 30)
    ]  # nine so small slices at once
    assert progress[0].seconds_left is None
    assert all(p.seconds_left > 0 for p in progress[1:-1])
    assert progress[-1].seconds_left == 0
    assert not files_in(temporary)


def test_turned_and_strided_arrays_arrive_as_they_are(worker, bundle, expected):
    plain = scan()
    turned = Volume(np.asfortranarray(np.repeat(plain.array, 2, axis=0))[::2], plain.ijk_to_ras)
    done = worker.wait(worker.submit(turned, bundle, Request(device="cpu", speed="accurate")))
    np.testing.assert_array_equal(done.result.labelmap, expected.at().labelmap)


def test_the_next_job_finds_the_process_warm(worker, bundle):
    worker.wait(worker.submit(scan(), bundle, Request(device="cpu")))
    pid = worker.pid
    worker.wait(worker.submit(scan(), bundle, Request(device="cpu")))
    assert worker.pid == pid is not None
    assert alive(pid)


def test_a_model_that_was_replaced_under_its_name_is_loaded_again(worker, tmp_path):
    found = []
    for threshold in (0.5, 0.9):
        shutil.rmtree(tmp_path / "bright-v1.0.0", ignore_errors=True)
        folder = bright_bundle(tmp_path / "bright-v1.0.0", threshold=threshold).folder
        found.append(worker.wait(worker.submit(scan(), folder, Request(device="cpu"))).result.threshold)
    assert found == [0.5, 0.9]


def test_a_model_that_is_loaded_on_one_device_does_not_run_there_for_another(worker, bundle):
    worker.wait(worker.submit(scan(), bundle, Request(device="cpu")))
    absent = "cuda" if sys.platform == "darwin" else "mps"
    assert fails(worker, worker.submit(scan(), bundle, Request(device=absent))).kind == "refused"


def test_the_last_result_can_be_had_at_another_threshold_and_shown_as_maps_without_the_network(
    worker, bundle, expected
):
    job = worker.submit(scan(), bundle, Request(device="cpu", speed="accurate"))
    worker.wait(job)
    assert worker.kept == job
    (again,) = run(worker, worker.rethreshold(job, 0.9))  # no progress: the network does not run
    np.testing.assert_array_equal(again.result.labelmap, expected.at(0.9).labelmap)
    assert again.result.threshold == 0.9
    volume_ml, before = (each.segments[0].measurements["volume_ml"] for each in (again.result, expected.at()))
    assert volume_ml < before
    (ready,) = run(worker, worker.request_maps(job, "probability", "uncertainty"))
    assert isinstance(ready, MapsReady)
    np.testing.assert_array_equal(ready.maps["probability"], expected.probability())
    np.testing.assert_array_equal(ready.maps["uncertainty"], expected.uncertainty())


def test_a_result_that_another_one_followed_is_gone(worker, bundle):
    first, second = (worker.submit(scan(), bundle, Request(device="cpu")) for _ in range(2))
    worker.wait(second)
    assert worker.wait(first).job == first  # kept for whoever waits for it later
    assert "run the segmentation again" in str(fails(worker, worker.rethreshold(first, 0.4)))
    worker.wait(worker.rethreshold(second, 0.4))


def test_the_device_tells_its_name_and_free_memory(worker):
    state = worker.wait(worker.ask_device("cpu"))
    assert isinstance(state, DeviceState)
    assert state.device.startswith("cpu")
    assert 1e8 < state.free_memory_bytes < 1e14


@pytest.mark.parametrize(
    ("kind", "words", "submit"),
    [
        ("refused", "Unknown device 'abacus'", lambda w, b: w.ask_device("abacus")),
        ("refused", "for liver, not for nodule", lambda w, b: w.submit(scan(), b, Request("nodule", device="cpu"))),
        ("refused", "not a usable model folder", lambda w, b: w.submit(scan(), b / "none", Request(device="cpu"))),
        (
            "refused",
            "does not look like CT",
            lambda w, b: w.submit(Volume(scan().array + 1024, np.eye(4)), b, Request(device="cpu")),
        ),
    ],
)
def test_a_refusal_of_the_library_arrives_in_its_own_words_and_the_process_stays(worker, bundle, kind, words, submit):
    pid = worker.pid
    error = fails(worker, submit(worker, bundle))
    assert (error.kind, worker.pid) == (kind, pid)
    assert words in str(error)


def test_too_little_memory_is_said_and_the_next_job_gets_a_fresh_process(worker, tmp_path, bundle, expected):
    pid = worker.pid
    fine = bright_bundle(tmp_path / "bright-v2.0.0", pixel_mm=0.01).folder
    huge = Volume(scan().array, scan().ijk_to_ras * [45, 45, 1, 1])  # 3 · 10¹¹ of these pixels in a slice
    error = fails(worker, worker.submit(huge, fine, Request(device="cpu")))
    assert error.kind == "memory"
    assert "memory" in str(error)
    assert "Traceback" in error.details
    works(worker, bundle, expected)
    assert worker.pid != pid


def test_every_event_of_a_job_comes_before_those_of_the_next(worker, bundle):
    jobs = [worker.submit(scan(), bundle, Request(device="cpu", speed="accurate")) for _ in range(3)]
    events = []
    for _ in until(lambda: not worker.busy):
        events += worker.poll()
    assert [event.job for event in events if isinstance(event, ResultReady)] == jobs
    assert all(before.job <= after.job for before, after in pairwise(events))


# Cancelling


@pytest.mark.parametrize("moment_s", [0, 0.1, 0.4, 1.2])
def test_a_job_is_cancelled_at_any_moment_and_the_next_one_works(worker, bundle, expected, temporary, moment_s):
    kept = worker.wait(worker.submit(scan(), bundle, Request(device="cpu"))).job
    job = worker.submit(scan(1200), bundle, Request(device="cpu", speed="accurate"))
    time.sleep(moment_s)  # without `poll`: a result that has come meanwhile is given up, too
    worker.cancel(job)
    last = run(worker, job)[-1]
    assert isinstance(last, Failed)
    assert last.error.kind == "cancelled"
    assert not files_in(temporary)
    assert not worker.busy
    if worker.kept:  # it stopped politely
        assert worker.wait(worker.rethreshold(kept, 0.4)).job > kept
    works(worker, bundle, expected)


def test_a_job_that_is_cancelled_when_its_network_is_done_leaves_what_was_kept(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(job_handler, "keep_freed_memory", lambda: None)  # this process is no worker
    monkeypatch.setattr(job_handler, "register_module_forward_pre_hook", lambda check: None)
    said = []

    def say(what, job, **more):
        said.append((what, job))
        if what == "progress" and job == 2 and more["done"] == more["total"]:
            handler.cancelled = 2

    handler = job_handler.JobHandler(tmp_path, say)
    about = {
        "ijk_to_ras": scan().ijk_to_ras.tolist(),
        "bundle": str(bundle),
        "request": Request(device="cpu").to_json(),
    }
    for job in (1, 2):
        handler.handle(
            {"do": "segment", "job": job, "volume": save_array(tmp_path, job, "volume", scan().array), **about}
        )
    handler.handle({"do": "threshold", "job": 3, "of": 1, "threshold": 0.4, "show_from": None})
    assert [each for each in said if each[0] != "progress"] == [("result", 1), ("failed", 2), ("result", 3)]


def test_a_job_stops_between_two_layers_and_the_process_stays(worker, bundle, expected, monkeypatch, tmp_path):
    works(worker, bundle, expected)
    monkeypatch.setattr(worker_client, "CANCEL_S", PATIENCE_S)  # no force
    pid = worker.pid
    endless = Volume(np.full((20_000, 24, 24), -900, np.int16), np.diag([2, 2, 20, 1]))
    job = worker.submit(endless, bright_bundle(tmp_path / "fine-v1.0.0", pixel_mm=0.05).folder, Request(device="cpu"))
    started_at = cpu_s(pid)
    for _ in until(lambda: cpu_s(pid) > started_at + 2):  # in the coarse pass, which takes five minutes
        assert all(isinstance(each, Progress) for each in worker.poll())
    cancelled_at = cpu_s(pid)
    worker.cancel(job)
    (last,) = run(worker, job)
    assert last.error.kind == "cancelled"
    assert worker.pid == pid
    assert alive(pid)
    assert cpu_s(pid) < cancelled_at + 30  # of work, however slow the computer: not the rest of the pass


def test_a_process_that_does_not_react_is_killed_when_cancelled(tmp_path, temporary):
    with Worker(fake(tmp_path, "say('ready')\ntime.sleep(999)")) as worker:
        job, pid = worker.submit(scan(), "model", Request()), worker.pid
        for _ in until(lambda: worker._running.sent):
            worker.poll()
        worker.cancel(job)
        (last,) = run(worker, job)
        assert last.error.kind == "cancelled"
        for _ in until(lambda: not alive(pid)):
            pass
        assert worker.pid is None


def test_a_job_that_waits_is_dropped_and_its_volume_with_it(tmp_path, temporary):
    with Worker(fake(tmp_path, "say('ready')\ntime.sleep(999)")) as worker:
        running, waiting = (worker.submit(scan(), "model", Request()) for _ in range(2))
        worker.cancel(waiting)
        assert [path.name for path in files_in(temporary)] == [f"{running}-volume.npy"]
        assert fails(worker, waiting).kind == "cancelled"
        worker.cancel(running)
        assert fails(worker, running).kind == "cancelled"


def test_what_progress_raises_cancels_the_job_and_passes_through(tmp_path, temporary):
    def interrupt(progress):
        raise KeyboardInterrupt

    script = "say('ready')\nsay('progress', job=1, phase='slices', done=1, total=9, seconds_left=None)\ntime.sleep(999)"
    with Worker(fake(tmp_path, script)) as worker:
        job = worker.submit(scan(), "model", Request())
        with pytest.raises(KeyboardInterrupt):
            worker.wait(job, interrupt)
        assert fails(worker, job).kind == "cancelled"
