"""Jobs in a real child process: the same masks as the engine's, cancelled at once, and no death of the child is the end."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from bright import bright_bundle

from UNetPlusPlusSegmentLib.bundles import read_bundle
from UNetPlusPlusSegmentLib.inference import SliceEngine
from UNetPlusPlusSegmentLib.jobs import client
from UNetPlusPlusSegmentLib.jobs.arrays import ArrayFolder
from UNetPlusPlusSegmentLib.jobs.client import Worker
from UNetPlusPlusSegmentLib.jobs.events import DeviceState, Failed, JobError, MapsReady, Progress, Segmented
from UNetPlusPlusSegmentLib.jobs.process import python_executable
from UNetPlusPlusSegmentLib.volumes import Volume

LIBRARY = Path(client.__file__).parents[1]
PATIENCE_S = 120  # for a process to end on a busy computer; no test waits so long when all is well
CHATTER = """
import os, threading, time
print("a start-up script that prints")
def chat():
    while True:
        time.sleep(0.01)
        os.write(1, b"a library that prints without an end of line")
threading.Thread(target=chat, daemon=True).start()
"""


def scan(slices: int = 30, dtype: type = np.int16) -> Volume:
    """Noise below 50 HU and in it a block of 90 HU, on an oblique, flipped grid of unequal spacing."""
    draw = np.random.default_rng(0)
    array = draw.integers(-900, 50, (slices, 60, 70))
    array[slices // 3 : slices // 2, 20:45, 15:50] = 90
    c, s = np.cos(0.2), np.sin(0.2)
    ijk_to_ras = np.array([[-1.7, 0, 0, 50.3], [0, 2.1 * c, -4 * s, -7.1], [0, 2.1 * s, 4 * c, 1 / 3], [0, 0, 0, 1]])
    return Volume(array.astype(dtype), ijk_to_ras)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return bright_bundle(tmp_path_factory.mktemp("models") / "bright-v1.0.0").folder


@pytest.fixture(scope="module")
def expected(bundle):
    return SliceEngine(read_bundle(bundle), "cpu").segment(scan(), "accurate")


@pytest.fixture(scope="module")
def temporary(tmp_path_factory):
    """Where the clients of this module make their folders."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("temporary")
        patch.setattr(tempfile, "tempdir", str(folder))
        yield folder


@pytest.fixture(scope="module")
def worker(temporary, tmp_path_factory):
    """One real worker for most tests; it starts among noise on stdout, which must not disturb it."""
    chatter = tmp_path_factory.mktemp("chatter")
    (chatter / "sitecustomize.py").write_text(CHATTER)
    with Worker() as worker:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", str(chatter))
            job = worker.ask_device()
        worker.wait(job)
        yield worker
    assert not list(temporary.iterdir())


def run(worker, job) -> list:
    """All events of a job, the last one included."""
    events = []
    for _ in until(lambda: events[-1:] and not isinstance(events[-1], Progress)):
        events.extend(worker.poll())
    assert {event.job for event in events} == {job}
    return events


def until(met):
    """Go round a loop until a condition is met."""
    deadline = time.monotonic() + PATIENCE_S
    while not met():
        assert time.monotonic() < deadline, "nothing happened for too long"
        yield
        time.sleep(0.005)


def alive(pid: int) -> bool:
    """Whether any thread of it still runs."""
    try:
        states = [stat.read_text().rpartition(")")[2].split()[0] for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
    except (FileNotFoundError, ProcessLookupError):  # one ended while we looked
        return alive(pid)
    return any(state not in "ZX" for state in states)


def cpu_s(pid: int) -> float:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11]) / os.sysconf("SC_CLK_TCK")


def fails(worker, job) -> JobError:
    with pytest.raises(JobError) as caught:
        worker.wait(job)
    assert str(caught.value).count("\n") == 0
    assert str(caught.value).endswith(".")
    return caught.value


def works(worker, bundle, expected) -> None:
    done = worker.wait(worker.submit(scan(), bundle, "cpu", "accurate"))
    np.testing.assert_array_equal(done.labelmap, expected.labelmap)


def files_in(temporary) -> list:
    return [path for path in temporary.rglob("*") if path.is_file()]


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
    job = worker.submit(scan(dtype=dtype), bundle, "cpu", "accurate")
    handed_over = np.load(temporary / next(temporary.iterdir()).name / f"{job}-volume.npy", mmap_mode="r")
    assert handed_over.dtype == dtype
    *progress, done = run(worker, job)
    assert isinstance(done, Segmented)
    np.testing.assert_array_equal(done.labelmap, expected.labelmap)
    assert 0 < done.labelmap.sum() < done.labelmap.size / 4
    assert done.labelmap.dtype == np.uint8
    for same in ("segments", "notes", "threshold", "device", "slices"):
        assert getattr(done, same) == getattr(expected, same)
    assert [(p.done, p.total) for p in progress] == [
        (n, 30) for n in (*range(9, 30, 9), 30)
    ]  # nine so small slices at once
    assert progress[0].seconds_left is None
    assert all(p.seconds_left > 0 for p in progress[1:-1])
    assert progress[-1].seconds_left == 0
    assert not files_in(temporary)


def test_turned_and_strided_arrays_arrive_as_they_are(worker, bundle, expected):
    plain = scan()
    turned = Volume(np.asfortranarray(np.repeat(plain.array, 2, axis=0))[::2], plain.ijk_to_ras)
    done = worker.wait(worker.submit(turned, bundle, "cpu", "accurate"))
    np.testing.assert_array_equal(done.labelmap, expected.labelmap)


def test_the_next_job_finds_the_process_warm(worker, bundle):
    worker.wait(worker.submit(scan(), bundle, "cpu"))
    pid = worker.pid
    worker.wait(worker.submit(scan(), bundle, "cpu"))
    assert worker.pid == pid is not None
    assert alive(pid)


def test_the_last_result_can_be_cut_again_and_shown_as_maps_without_the_network(worker, bundle, expected):
    job = worker.submit(scan(), bundle, "cpu", "accurate")
    worker.wait(job)
    assert worker.kept == job
    (again,) = run(worker, worker.rethreshold(job, 0.9))  # no progress: the network does not run
    np.testing.assert_array_equal(again.labelmap, expected.with_threshold(0.9).labelmap)
    assert again.threshold == 0.9
    assert again.segments[0].measurements["volume_ml"] < expected.segments[0].measurements["volume_ml"]
    (ready,) = run(worker, worker.request_maps(job, "probability", "uncertainty"))
    assert isinstance(ready, MapsReady)
    np.testing.assert_array_equal(ready.maps["probability"], expected.probability())
    np.testing.assert_array_equal(ready.maps["uncertainty"], expected.uncertainty())


def test_a_result_that_another_one_followed_is_gone(worker, bundle):
    first, second = (worker.submit(scan(), bundle, "cpu") for _ in range(2))
    worker.wait(second)
    assert worker.wait(first).job == first  # kept for whoever waits for it later
    assert "run it again" in str(fails(worker, worker.rethreshold(first, 0.4)))
    worker.wait(worker.rethreshold(second, 0.4))


def test_the_device_tells_its_name_and_free_memory(worker):
    state = worker.wait(worker.ask_device("cpu"))
    assert isinstance(state, DeviceState)
    assert state.device.startswith("cpu")
    assert 1e8 < state.free_memory_bytes < 1e14


@pytest.mark.parametrize(
    ("kind", "words", "submit"),
    [
        ("refused", "no device 'abacus'", lambda w, b: w.ask_device("abacus")),
        ("refused", "has no speed 'warp'", lambda w, b: w.submit(scan(), b, "cpu", "warp")),
        ("refused", "not a usable model folder", lambda w, b: w.submit(scan(), b / "none", "cpu")),
        ("refused", "does not look like CT", lambda w, b: w.submit(Volume(scan().array + 1024, np.eye(4)), b, "cpu")),
    ],
)
def test_what_the_library_refuses_is_refused_in_its_own_words_and_the_process_stays(
    worker, bundle, kind, words, submit
):
    pid = worker.pid
    error = fails(worker, submit(worker, bundle))
    assert (error.kind, worker.pid) == (kind, pid)
    assert words in str(error)


def test_too_little_memory_is_said_and_the_next_job_gets_a_fresh_process(worker, tmp_path, bundle, expected):
    pid = worker.pid
    microscopic = bright_bundle(tmp_path / "bright-v2.0.0", pixel_mm=1e-5).folder  # 10¹⁶ pixels in a slice
    error = fails(worker, worker.submit(scan(), microscopic, "cpu"))
    assert error.kind == "memory"
    assert "memory" in str(error)
    assert "Traceback" in error.details
    works(worker, bundle, expected)
    assert worker.pid != pid


def test_every_event_of_a_job_comes_before_those_of_the_next(worker, bundle):
    jobs = [worker.submit(scan(), bundle, "cpu", "accurate") for _ in range(3)]
    events = []
    for _ in until(lambda: not worker.busy):
        events += worker.poll()
    assert [event.job for event in events if isinstance(event, Segmented)] == jobs
    assert all(before.job <= after.job for before, after in pairwise(events))


# Cancelling


@pytest.mark.parametrize("seed", range(4))
def test_a_job_is_cancelled_within_a_second_at_any_moment(worker, bundle, expected, temporary, seed):
    kept = worker.wait(worker.submit(scan(), bundle, "cpu")).job
    job = worker.submit(scan(1200), bundle, "cpu", "accurate")
    wait_until = time.monotonic() + random.Random(seed).uniform(0, 1.5)
    for _ in until(lambda: time.monotonic() > wait_until):
        worker.poll()
    cancelled_at = time.monotonic()
    worker.cancel(job)
    *_, last = run(worker, job)
    assert time.monotonic() - cancelled_at < 1
    assert isinstance(last, Failed)
    assert last.error.kind == "cancelled"
    assert not files_in(temporary)
    assert not worker.busy
    if worker.kept:  # it stopped politely
        assert worker.wait(worker.rethreshold(kept, 0.4)).job > kept
    works(worker, bundle, expected)


def test_a_job_stops_between_two_layers_and_the_process_stays(worker, bundle, expected, monkeypatch):
    works(worker, bundle, expected)
    monkeypatch.setattr(client, "CANCEL_S", PATIENCE_S)  # no force
    pid = worker.pid
    endless = Volume(np.full((60_000, 24, 24), -900, np.int16), np.diag([2, 2, 10, 1]))
    job = worker.submit(endless, bundle, "cpu")
    started_at = cpu_s(pid)
    for _ in until(lambda: cpu_s(pid) > started_at + 2):  # deep in the coarse pass: minutes without a word of progress
        assert worker.poll() == []
    cancelled_at = time.monotonic()
    worker.cancel(job)
    (last,) = run(worker, job)
    assert time.monotonic() - cancelled_at < 30
    assert last.error.kind == "cancelled"
    assert worker.pid == pid
    assert alive(pid)


def test_a_process_that_does_not_react_is_killed_when_cancelled(worker, bundle):
    job = worker.submit(scan(1200), bundle, "cpu", "accurate")
    pid = worker.pid
    for _ in until(worker.poll):
        pass
    os.kill(pid, signal.SIGSTOP)
    cancelled_at = time.monotonic()
    worker.cancel(job)
    assert run(worker, job)[-1].error.kind == "cancelled"
    assert time.monotonic() - cancelled_at < 1
    for _ in until(lambda: not alive(pid)):
        pass
    assert worker.pid is None


def test_a_job_that_waits_is_dropped_and_its_volume_with_it(worker, bundle, temporary):
    running, waiting = (worker.submit(scan(200), bundle, "cpu", "accurate") for _ in range(2))
    worker.cancel(waiting)
    assert [path.name for path in files_in(temporary)] == [f"{running}-volume.npy"]
    assert fails(worker, waiting).kind == "cancelled"
    worker.cancel(running)
    assert fails(worker, running).kind == "cancelled"


def test_what_progress_raises_cancels_the_job_and_passes_through(worker, bundle):
    def interrupt(progress):
        raise KeyboardInterrupt

    job = worker.submit(scan(1200), bundle, "cpu", "accurate")
    with pytest.raises(KeyboardInterrupt):
        worker.wait(job, interrupt)
    assert fails(worker, job).kind == "cancelled"


# Deaths


def die(worker, bundle, temporary, moment_s: float) -> None:
    job = worker.submit(scan(1200), bundle, "cpu", "accurate")
    wait_until = time.monotonic() + moment_s
    events = []
    for _ in until(lambda: time.monotonic() > wait_until):
        events += worker.poll()
    os.kill(worker.pid, signal.SIGKILL)
    events += run(worker, job)
    assert all(isinstance(event, Progress) for event in events[:-1])
    assert events[-1].error.kind == "memory"
    assert "ended by the operating system, probably because memory ran out" in str(events[-1].error)
    assert not files_in(temporary)


@pytest.mark.parametrize("state", ["starting", "working", "idle"])
def test_a_killed_worker_is_told_in_a_sentence_and_the_next_job_works(worker, bundle, expected, temporary, state):
    if state == "starting":
        worker.close()
    elif worker.pid is None:
        works(worker, bundle, expected)
    if state == "idle":
        pid, kept = worker.pid, worker.kept
        os.kill(pid, signal.SIGKILL)
        for _ in until(lambda: not alive(pid)):
            pass
        assert "run it again" in str(fails(worker, worker.rethreshold(kept, 0.4)))
        assert (worker.pid, worker.kept) == (None, None)  # no new process for a result that died with the old one
    else:
        die(worker, bundle, temporary, moment_s=0.3)
    works(worker, bundle, expected)


@pytest.mark.slow
def test_ten_kills_at_random_moments_are_survived(worker, bundle, expected, temporary):
    draw = random.Random(7)
    for _ in range(10):
        if draw.random() < 0.5:
            works(worker, bundle, expected)
        die(worker, bundle, temporary, draw.uniform(0, 2))
    works(worker, bundle, expected)


# Other children than ours


def fake(tmp_path, script: str) -> list[str]:
    """A child without torch, which is quick to start; `count` is how many came before it."""
    path = tmp_path / "fake.py"
    count = "import json, os, signal, subprocess, sys, time\nfrom pathlib import Path\n" + (
        "log = Path(__file__).with_suffix('.log')\nlog.open('a').write('.')\ncount = len(log.read_text()) - 1\n"
        "def say(what, **more):\n    print(json.dumps({'say': what, **more}), flush=True)\n"
        "def answer():\n    for line in sys.stdin:\n"
        "        say('device', job=json.loads(line)['job'], device='fake', free_memory_bytes=None)\n"
    )
    path.write_text(count + script)
    return [sys.executable, str(path)]


@pytest.mark.parametrize(
    ("kind", "words", "script"),
    [
        ("crash", "said what cannot be understood ('@#!",
         "say('ready')\nif not count: os.write(1, b'@#!\\xff\\xfe\\n')\nanswer()"),
        ("crash", "said what cannot be understood ('[1, 2]'", "say('ready')\nif not count: print([1, 2], flush=True)\nanswer()"),
        ("crash", "said what cannot be understood", "say('ready')\nif not count: say('result', job=1)\nanswer()"),
        ("hang", "has not answered for 1 s", "say('ready')\nif not count: time.sleep(999)\nanswer()"),
        ("hang", "has not answered for 1 s", "if not count: time.sleep(999)\nsay('ready')\nanswer()"),
        ("hang", "has not answered for 1 s", "say('ready')\nif not count: sys.stdin.close(); time.sleep(999)\nanswer()"),
        ("crash", "closed its output", "say('ready')\nif not count: os.close(1); time.sleep(999)\nanswer()"),
        ("crash", "ended unexpectedly (exit code 3: Jämmerlich)",
         "say('ready')\nif not count: print('Jämmerlich', file=sys.stderr, flush=True); sys.exit(3)\nanswer()"),
        ("crash", "ended unexpectedly (exit code 0)", "if not count: sys.exit()\nsay('ready')\nanswer()"),
        ("crash", "crashed (SIGSEGV)", "if not count: os.kill(os.getpid(), signal.SIGSEGV)\nsay('ready')\nanswer()"),
        ("memory", "ended by the operating system",  # what a launcher makes of the end of the Python below it
         "if not count: print('error: [python-real] exit abnormally - Report the problem.', file=sys.stderr); sys.exit(1)\n"
         "say('ready')\nanswer()"),
        ("crash", "broken driver",
         "say('ready')\nif not count: say('failed', job=1, kind='crash', message='A broken driver.')\nanswer()"),
    ],
)  # fmt: skip
def test_a_child_that_goes_wrong_is_told_in_a_sentence_ended_and_replaced(tmp_path, temporary, kind, words, script):
    with Worker(fake(tmp_path, script), silence_s=1 if kind == "hang" else PATIENCE_S) as worker:
        job = worker.ask_device()
        pid = worker.pid
        error = fails(worker, job)
        assert error.kind == kind
        assert words in str(error)
        for _ in until(lambda: not alive(pid)):
            pass
        worker.silence_s = PATIENCE_S
        assert worker.wait(worker.ask_device()).device == "fake"
        assert worker.pid not in (None, pid)


def test_what_is_printed_before_the_child_is_ready_does_not_matter(tmp_path, temporary):
    script = "os.write(1, b'welcome \\xff\\n{}\\n5\\n')\nsay('alive')\nsay('ready')\nanswer()"
    with Worker(fake(tmp_path, script)) as worker:
        assert worker.wait(worker.ask_device()).device == "fake"


def test_a_launcher_is_killed_with_the_child_that_it_started(tmp_path, temporary):
    script = "if len(sys.argv) == 2:\n    child = subprocess.Popen([sys.executable, __file__, sys.argv[1], 'below'])\n"
    script += "    Path(__file__).with_suffix('.pid').write_text(str(child.pid))\n    child.wait()\n"
    script += "say('ready')\ntime.sleep(999)"
    with Worker(fake(tmp_path, script)) as worker:
        job, written = worker.ask_device(), tmp_path / "fake.pid"
        for _ in until(lambda: worker._running.sent and written.exists()):
            worker.poll()
        launcher, child = worker.pid, int(written.read_text())
        assert alive(child)
        assert launcher != child
        worker.cancel(job)
        assert fails(worker, job).kind == "cancelled"
        for _ in until(lambda: not alive(child) and not alive(launcher)):
            pass


def test_a_python_that_is_not_there_is_told(temporary):
    with Worker(["/no/such/python"]) as worker:
        assert "/no/such/python cannot be started (No such file" in str(fails(worker, worker.ask_device()))


def test_without_torch_the_way_out_is_told_for_every_job(tmp_path, temporary, monkeypatch):
    (tmp_path / "torch.py").write_text("raise ImportError('DLL load failed')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Worker() as worker:
        for _ in range(2):
            error = fails(worker, worker.ask_device())
            assert error.kind == "refused"
            assert "PyTorch does not load (DLL load failed)" in str(error)
            assert "PyTorch extension" in str(error)


def test_a_full_disk_is_told_when_the_volume_is_handed_over_and_no_half_file_stays(bundle, temporary):
    volume, limits = scan(), resource.getrlimit(resource.RLIMIT_FSIZE)
    with Worker() as worker:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        try:
            with pytest.raises(JobError, match=r"cannot hold it \(.*\): make room there, or set TMPDIR") as caught:
                worker.submit(volume, bundle)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert caught.value.kind == "refused"
        assert not files_in(temporary)
        assert not worker.busy


def test_time_in_which_the_parent_was_blocked_is_no_silence_of_the_child(tmp_path, temporary):
    with Worker(fake(tmp_path, "say('ready')\ntime.sleep(999)"), silence_s=1.5) as worker:
        job = worker.ask_device()
        for _ in until(lambda: worker._running.sent):
            worker.poll()
        time.sleep(2)
        assert worker.poll() == []
        assert fails(worker, job).kind == "hang"


def test_a_job_that_is_not_under_way_is_not_waited_for_forever(temporary):
    with Worker() as worker, pytest.raises(LookupError, match="no job 7"):
        worker.wait(7)


def test_a_closed_worker_can_be_used_again(tmp_path, temporary):
    with Worker(fake(tmp_path, "say('ready')\nanswer()")) as worker:
        first = worker.ask_device()
        worker.close()
        assert not worker.busy
        second = worker.ask_device()
        assert worker.wait(second).job == second != first


def test_inside_slicer_python_slicer_is_started(tmp_path, monkeypatch):
    launcher = tmp_path / "PythonSlicer"
    launcher.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delitem(sys.modules, "slicer", raising=False)
    assert python_executable() == sys.executable
    monkeypatch.setitem(sys.modules, "slicer", ModuleType("slicer"))
    assert python_executable() == str(launcher)


# Parents


def parent(folder: Path, lines: str, **environment: str) -> subprocess.Popen:
    """A Python process that uses the library from `folder`; its temporary files go there, too."""
    start = "import sys, numpy as np\nfrom UNetPlusPlusSegmentLib.jobs.client import Worker\n" + (
        "from UNetPlusPlusSegmentLib.volumes import Volume\n"
        "array = np.full((1200, 60, 70), -900, np.int16)\nvolume = Volume(array, np.diag([2, 2, 3, 1]))\n"
    )
    (folder / "parent.py").write_text(start + lines, encoding="utf-8")
    environment = {**os.environ, "TMPDIR": str(folder / "tmp"), **environment}
    (folder / "tmp").mkdir()
    command = [sys.executable, str(folder / "parent.py")]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_it_works_from_a_path_with_blanks_and_umlauts_and_the_parent_never_imports_torch(tmp_path, bundle):
    folder = tmp_path / "Größe é 肝 und 'mehr'"
    shutil.copytree(LIBRARY, folder / LIBRARY.name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(bundle, folder / "Modell ü-v1.0.0")
    devices = folder / LIBRARY.name / "devices.py"
    devices.write_text(
        devices.read_text(encoding="utf-8").replace("There is no device", "Kein Gerät"), encoding="utf-8"
    )
    lines = f"""
worker = Worker()
done = worker.wait(worker.submit(volume, {str(folder / "Modell ü-v1.0.0")!r}, "cpu"))
assert done.labelmap.shape == volume.array.shape, done
print(done.notes)
try:
    worker.wait(worker.ask_device("abacus"))
except ValueError as error:
    print(error)
print([name for name in sys.modules if name.split(".")[0] in ("torch", "slicer", "qt", "scipy")])
"""  # and it leaves without saying goodbye
    process = parent(folder, lines, PYTHONPATH=str(folder), PYTHONUTF8="1")
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    notes, error, modules = out.splitlines()
    assert "No liver was found." in notes
    assert error.startswith("Kein Gerät 'abacus'"), "the worker runs the library from elsewhere"
    assert modules == "[]"
    for _ in until(lambda: not list((folder / "tmp").iterdir())):
        pass


@pytest.mark.parametrize("state", ["working", "idle"])
def test_the_worker_ends_and_clears_up_when_its_parent_is_killed(tmp_path, bundle, state):
    lines = f"""
import time
worker = Worker()
if {state!r} == "idle":
    worker.wait(worker.ask_device())
    print(worker.pid, flush=True)
    time.sleep(999)
job = worker.submit(volume, {str(bundle)!r}, "cpu", "accurate")
worker.wait(job, lambda progress: print(worker.pid, flush=True) if progress.done > 1 else None)
"""
    process = parent(tmp_path, lines, PYTHONPATH=str(LIBRARY.parent))
    pid = int(process.stdout.readline())
    assert alive(pid)
    process.kill()
    process.communicate()
    for _ in until(lambda: not alive(pid)):
        pass
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc's malloc needs it")
def test_memory_that_torch_freed_is_used_again_without_page_faults():
    lines = """
import resource, torch
from UNetPlusPlusSegmentLib.jobs.memory import give_back_freed_memory, keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.zeros(10_000_000)  # 40 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
plain = faults()
keep_freed_memory()
for _ in range(5):
    faults()  # until the holes in the heap have found their size
kept = faults()
give_back_freed_memory()
print(plain, kept, faults())
"""
    done = subprocess.run(
        [sys.executable, "-c", lines],
        env={**os.environ, "PYTHONPATH": str(LIBRARY.parent)},
        capture_output=True,
        check=True,
    )
    plain, kept, afterwards = map(int, done.stdout.split())
    if plain < 4_000:
        pytest.skip("huge pages: there is nothing to see")
    assert kept < plain / 20
    assert afterwards > 5_000, "freed memory was not given back"


def test_a_long_scan_takes_less_than_a_gigabyte_beyond_itself_its_mask_included(bundle):
    """512 × 512 × 600 with padding, which has to be copied; the network of a real model takes 0.2 GB more."""
    lines = f"""
import numpy as np
from pathlib import Path
from UNetPlusPlusSegmentLib.bundles import read_bundle
from UNetPlusPlusSegmentLib.inference import SliceEngine
from UNetPlusPlusSegmentLib.jobs.memory import give_back_freed_memory, keep_freed_memory
from UNetPlusPlusSegmentLib.volumes import Volume

def status(what):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith(what))

keep_freed_memory()
scan = np.full((600, 512, 512), -900, np.int16)
scan[:, :20] = -2000
scan[200:320, 150:350, 100:300] = 90
scan[500, 400:500, 100:300] = 90
volume = Volume(scan, np.diag([0.8, 0.8, 1.0, 1]))
engine = SliceEngine(read_bundle({str(bundle)!r}), "cpu")
give_back_freed_memory()
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
result = engine.segment(volume)
print(status("VmHWM") - before, result.slices)
"""
    done = subprocess.run(
        [sys.executable, "-c", lines],
        env={**os.environ, "PYTHONPATH": str(LIBRARY.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    megabytes, slices = map(float, done.stdout.split())
    assert slices > 20
    assert megabytes < 800


def test_a_large_scan_is_cancelled_within_a_second_in_every_part_of_the_work(worker, bundle, temporary):
    """Cleaning, the coarse pass, the fine one, and the cut with its components and holes."""
    scan = np.full((80, 400, 400), -900, np.int16)
    scan[10:70, 100:300, 80:320] = np.random.default_rng(0).choice([90, 40], (60, 200, 240), p=[0.9, 0.1])
    large = Volume(scan, np.diag([0.8, 0.8, 1.0, 1]))
    started_at = time.monotonic()
    worker.wait(worker.submit(large, bundle, "cpu", "accurate"))
    took_s = time.monotonic() - started_at
    for moment in (0.2, 0.6, 0.9):
        job = worker.submit(large, bundle, "cpu", "accurate")
        wait_until = time.monotonic() + moment * took_s
        events = []
        for _ in until(lambda then=wait_until: time.monotonic() > then):
            events += worker.poll()
        if any(isinstance(event, Segmented) for event in events):
            continue  # it was quicker this time
        cancelled_at = time.monotonic()
        worker.cancel(job)
        last = run(worker, job)[-1]
        assert time.monotonic() - cancelled_at < 1
        assert isinstance(last, Segmented) or last.error.kind == "cancelled"
        assert not files_in(temporary)
