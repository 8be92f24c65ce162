"""What a child process that listens to its parent leaves to its other code: an empty stdin, and stderr to print to."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from UNetPlusPlusSegmentLib.core.request import Request
from UNetPlusPlusSegmentLib.jobs.child_process import PACKAGE_PARENT

START = """
import subprocess, sys
sys.path.insert(0, {library!r})
from UNetPlusPlusSegmentLib.jobs import {module} as process

def look(*_, **__):
    subprocess.run([sys.executable, "-c", "import sys; print('heard', sys.stdin.readlines())"], check=True, timeout=5)
    raise ValueError("that is all")

process.{work} = look
sys.argv[1:] = ["1"]
process.main()
"""


@pytest.mark.parametrize(("module", "work"), [("cohort_main", "run_cohort"), ("dask_main", "cluster")])
def test_a_process_that_is_started_meanwhile_neither_waits_for_the_parent_nor_speaks_to_it(module, work):
    code = START.format(library=str(PACKAGE_PARENT), module=module, work=work)
    asked = {"inputs": "in", "folder": "out", "request": Request().to_json()}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) as child:
        child.stdin.write(json.dumps(asked) + "\n")
        child.stdin.flush()  # and it stays open, as that of a living parent
        first = child.stderr.readline()
        said, _ = child.communicate(timeout=30)
    assert first == "heard []\n"
    assert "heard" not in said
