"""No death of the worker process, and no other child in its place, is the end."""

import os
import random
import resource
import signal
import sys
import tempfile
import time
from types import ModuleType

import pytest

from Testing.support.worker_jobs import LONG, PATIENCE_S, alive, fails, fake, files_in, run, scan, until, works
from UNetPlusPlusSegmentLib.core.request import Request
from UNetPlusPlusSegmentLib.jobs import child_process
from UNetPlusPlusSegmentLib.jobs.child_process import ChildProcess, python_executable
from UNetPlusPlusSegmentLib.jobs.protocol import JobError, Progress
from UNetPlusPlusSegmentLib.jobs.worker_client import Worker

# Deaths


def die(worker, bundle, temporary, moment_s: float) -> None:
    job = worker.submit(scan(LONG), bundle, Request(device="cpu", speed="accurate"))
    time.sleep(moment_s)
    os.kill(worker.pid, signal.SIGKILL)
    events = run(worker, job)
    assert all(isinstance(event, Progress) for event in events[:-1])
    assert events[-1].error.kind == "memory"
    assert "killed by the operating system, probably because memory ran out" in str(events[-1].error)
    assert not files_in(temporary)


@pytest.mark.parametrize("state", ["starting", "working", "idle"])
def test_a_killed_worker_gives_one_message_and_the_next_job_works(worker, bundle, expected, temporary, state):
    if state == "starting":
        worker.close()
    elif worker.pid is None:
        works(worker, bundle, expected)
    if state == "idle":
        pid, kept = worker.pid, worker.kept
        os.kill(pid, signal.SIGKILL)
        for _ in until(lambda: not alive(pid)):
            pass
        assert "run the segmentation again" in str(fails(worker, worker.rethreshold(kept, 0.4)))
        assert (worker.pid, worker.kept) == (None, None)  # no new process for a result that died with the old one
    else:
        die(worker, bundle, temporary, moment_s=0.3)
    works(worker, bundle, expected)


@pytest.mark.slow(reason="starts twenty processes that load torch")
def test_ten_kills_at_random_moments_are_survived(worker, bundle, expected, temporary):
    draw = random.Random(7)
    for _ in range(10):
        if draw.random() < 0.5:
            works(worker, bundle, expected)
        die(worker, bundle, temporary, draw.uniform(0, 2))
    works(worker, bundle, expected)


# Other children than ours


@pytest.mark.parametrize(
    ("kind", "words", "script"),
    [
        ("crash", "sent an invalid message ('@#!",
         "say('ready')\nif not count: os.write(1, b'@#!\\xff\\xfe\\n')\nanswer()"),
        ("crash", "sent an invalid message ('[1, 2]'", "say('ready')\nif not count: print([1, 2], flush=True)\nanswer()"),
        ("crash", "sent an invalid message", "say('ready')\nif not count: say('result', job=1)\nanswer()"),
        ("hang", "has not answered for 1 s", "say('ready')\nif not count: time.sleep(999)\nanswer()"),
        ("hang", "has not answered for 1 s", "if not count: time.sleep(999)\nsay('ready')\nanswer()"),
        ("hang", "has not answered for 1 s", "say('ready')\nif not count: sys.stdin.close(); time.sleep(999)\nanswer()"),
        ("crash", "closed its output", "say('ready')\nif not count: os.close(1); time.sleep(999)\nanswer()"),
        ("crash", "ended unexpectedly (exit code 3: Jämmerlich)",
         "say('ready')\nif not count: print('Jämmerlich', file=sys.stderr, flush=True); sys.exit(3)\nanswer()"),
        ("crash", "ended unexpectedly (exit code 0)", "if not count: sys.exit()\nsay('ready')\nanswer()"),
        ("crash", "crashed (SIGSEGV)", "if not count: os.kill(os.getpid(), signal.SIGSEGV)\nsay('ready')\nanswer()"),
        ("memory", "killed by the operating system",  # what a launcher makes of the end of the Python below it
         "if not count: print('error: [python-real] exit abnormally - Report the problem.', file=sys.stderr); sys.exit(1)\n"
         "say('ready')\nanswer()"),
        ("crash", "broken driver",
         "say('ready')\nif not count: say('failed', job=1, kind='crash', message='A broken driver.')\nanswer()"),
    ],
)  # fmt: skip
def test_a_child_that_misbehaves_is_reported_ended_and_replaced(tmp_path, temporary, kind, words, script):
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


def test_a_child_may_end_some_time_after_its_output(tmp_path, temporary, monkeypatch):
    monkeypatch.setattr(child_process, "ENDING_S", PATIENCE_S)
    script = "say('ready')\nos.close(1); time.sleep(0.5); sys.exit(3)"
    with Worker(fake(tmp_path, script)) as worker:
        assert "ended unexpectedly (exit code 3)" in str(fails(worker, worker.ask_device()))


@pytest.mark.parametrize(
    "script", ["sys.exit(3)", "say('failed', job=1, kind='crash', message='A broken driver.')\nanswer()"]
)
def test_the_last_words_of_a_child_are_waited_for(tmp_path, temporary, monkeypatch, script):
    note = ChildProcess.note

    def note_late(self, line):  # as on a busy computer
        time.sleep(0.5)
        note(self, line)

    monkeypatch.setattr(ChildProcess, "note", note_late)
    monkeypatch.setattr(child_process, "ENDING_S", PATIENCE_S)
    script = f"say('ready')\nprint('Jämmerlich', file=sys.stderr, flush=True)\n{script}"
    with Worker(fake(tmp_path, script)) as worker:
        assert "Jämmerlich" in fails(worker, worker.ask_device()).details


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
            assert "PyTorch cannot be loaded (DLL load failed)" in str(error)
            assert "PyTorch Utils module" in str(error)


def test_a_full_disk_is_reported_when_the_volume_is_handed_over_and_no_partial_file_stays(bundle, temporary):
    volume, limits = scan(), resource.getrlimit(resource.RLIMIT_FSIZE)
    with Worker() as worker:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        try:
            with pytest.raises(
                JobError,
                match=r"cannot be saved in the temporary folder .* \(.*\)\. Free some space there, or set TMPDIR",
            ) as caught:
                worker.submit(volume, bundle, Request())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert caught.value.kind == "refused"
        assert not files_in(temporary)
        assert not worker.busy


def test_a_temporary_folder_that_is_gone_is_reported_when_the_volume_is_handed_over(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with Worker() as worker, pytest.raises(JobError, match=r"cannot be saved in .*gone \(No such file") as caught:
        worker.submit(scan(), bundle, Request())
    assert caught.value.kind == "refused"


def test_time_while_the_parent_was_blocked_does_not_count_as_silence_of_the_child(tmp_path, temporary):
    with Worker(fake(tmp_path, "say('ready')\ntime.sleep(999)"), silence_s=PATIENCE_S) as worker:
        job = worker.ask_device()
        for _ in until(lambda: worker._running.sent):
            worker.poll()
        worker.silence_s = 1.5
        time.sleep(2)
        assert worker.poll() == []
        assert fails(worker, job).kind == "hang"


def test_a_job_that_is_not_under_way_is_not_waited_for_forever(temporary):
    with Worker() as worker, pytest.raises(LookupError, match="Job 7 has ended already"):
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
