"""The worker process and its parent: paths, a parent that dies, and memory."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from Testing.support.worker_jobs import LIBRARY, alive, until
from UNetPlusPlusSegmentLib.jobs.worker_client import Worker

# Parents


def parent(folder: Path, lines: str, **environment: str) -> subprocess.Popen:
    """A Python process that uses the library from `folder`; its temporary files go there, too."""
    start = "import sys, numpy as np\nfrom UNetPlusPlusSegmentLib.jobs.worker_client import Worker\n" + (
        "from UNetPlusPlusSegmentLib.core.request import Request\nfrom UNetPlusPlusSegmentLib.core.volume import Volume\n"
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
    words = folder / LIBRARY.name / "core" / "request.py"
    words.write_text(words.read_text(encoding="utf-8").replace("Unknown device", "Kein Gerät"), encoding="utf-8")
    lines = f"""
worker = Worker()
done = worker.result_of(worker.submit(volume, {str(folder / "Modell ü-v1.0.0")!r}, Request(device="cpu")))
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
job = worker.submit(volume, {str(bundle)!r}, Request(device="cpu", speed="accurate"))
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


def test_the_arrays_are_removed_even_if_their_folder_can_neither_be_moved_nor_removed(tmp_path):
    """As on Windows, where it is the current folder of a launcher such as PythonSlicer."""
    code = f"""
from pathlib import Path
from UNetPlusPlusSegmentLib.jobs.worker_main import Line

def refused(*_):
    raise PermissionError("It is being used by another process")

Path.rename = Path.rmdir = refused
Line(Path({str(tmp_path)!r})).leave()
"""
    (tmp_path / "1-volume.npy").touch()
    environment = {**os.environ, "PYTHONPATH": str(LIBRARY.parent)}
    subprocess.run([sys.executable, "-c", code], env=environment, stdin=subprocess.DEVNULL, check=True)
    assert not [*tmp_path.iterdir()]


@pytest.mark.skipif(sys.platform == "win32", reason="there, folders cannot be locked")
def test_leftovers_of_a_killed_parent_and_worker_are_removed_by_the_next_worker(tmp_path, monkeypatch):
    """As a batch system does it; a parent may also die before it starts its worker. Folders in use stay."""
    lines = """
import time
worker = Worker()
print(worker._arrays.path, worker._arrays.put(1, "volume", array), flush=True)
time.sleep(999)
"""
    killed = parent(tmp_path, lines)
    folder = Path(killed.stdout.readline().split()[0])
    (tmp_path / "tmp" / "unetpp-results").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    with Worker() as first, Worker() as second:
        used = [folder, first._arrays.path, second._arrays.path]
        killed.kill()
        killed.communicate()
        assert all(path.is_dir() for path in used)
        with Worker() as third:
            assert third._arrays.path.is_dir()
            assert [path.is_dir() for path in used] == [False, True, True]
    assert [path.name for path in (tmp_path / "tmp").iterdir()] == ["unetpp-results"]


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc's malloc needs it")
def test_memory_that_torch_freed_is_used_again_without_page_faults():
    lines = """
import resource, torch
from UNetPlusPlusSegmentLib.jobs.allocator import give_back_freed_memory, keep_freed_memory
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


@pytest.mark.slow(reason="a scan of 0.3 GB, in a process of its own")
def test_a_long_scan_takes_less_than_a_gigabyte_beyond_itself_its_mask_included(bundle):
    """512 × 512 × 600 with padding, which has to be copied; the network of a real model takes 0.2 GB more."""
    lines = f"""
import numpy as np
from pathlib import Path
from UNetPlusPlusSegmentLib.network.bundle import read_bundle
from UNetPlusPlusSegmentLib.engine.organ import SliceEngine
from UNetPlusPlusSegmentLib.jobs.allocator import give_back_freed_memory, keep_freed_memory
from UNetPlusPlusSegmentLib.core.request import Request
from UNetPlusPlusSegmentLib.core.volume import Volume

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
result = engine.predict(volume, Request()).at()
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
