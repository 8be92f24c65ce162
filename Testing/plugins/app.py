"""The app in a browser: Slicer's views in this process, a whole app beside it, and a headless Chromium.

Imports are inside the fixtures: tests that do not use them load neither slicer nor a browser.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
from itertools import count

import pytest

_numbers = count()


@pytest.fixture(scope="module")
def session_parts():
    """Call it to get a trame server and four views with their own scene, on an event loop that is not running."""
    pytest.importorskip(
        "trame_slicer.core", exc_type=ImportError, reason="trame-slicer is not installed: pip install '.[app]'"
    )
    from trame.app import get_server

    from UNetPlusPlusSegmentLib.app.views import Views, render_without_a_screen

    render_without_a_screen()
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)

    def parts():
        server = get_server(f"test-{next(_numbers)}", client_type="vue3")
        return server, Views(server)

    yield parts
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    asyncio.set_event_loop(None)
    loop.close()


@pytest.fixture(scope="module")
def views(session_parts):
    return session_parts()[1]


@pytest.fixture
def two_livers(tmp_path):
    """The folders of results and of scans of a cohort of two cases."""
    from Testing.support.app_sessions import two_cases

    return two_cases(tmp_path)


@pytest.fixture
def open_session(session_parts):
    """Call it with paths of the app: a session with its first case opened, and a function that awaits."""
    from UNetPlusPlusSegmentLib.app.cases import find
    from UNetPlusPlusSegmentLib.app.session import Session

    sessions, do = [], asyncio.get_event_loop_policy().get_event_loop().run_until_complete

    def opened(*paths, output=None):
        session = Session(*session_parts(), find(paths, output))
        sessions.append(session)
        do(session.open(next(iter(session.cases))))
        return session, do

    yield opened
    for session in sessions:
        do(session.close())


@pytest.fixture
def an_app(tmp_path):
    """Call it with arguments of `unetpp-segment app`: it starts the app, and returns the process and the printed address.

    The test fails if processes are left behind.
    """
    psutil = pytest.importorskip("psutil")
    pytest.importorskip(
        "trame_slicer.core", exc_type=ImportError, reason="trame-slicer is not installed: pip install '.[app]'"
    )
    started = []

    def start(*arguments, models, empty_s=60):
        code = (
            f"import sys; from UNetPlusPlusSegmentLib.app import start; start.EMPTY_S = {empty_s};"
            " from UNetPlusPlusSegmentLib.cli.main import shell; sys.exit(shell())"
        )
        log = (tmp_path / f"app-{len(started)}.log").open("w+")
        process = psutil.Popen(
            [sys.executable, "-c", code, "app", "--port", "0", *map(str, arguments)],
            env={**os.environ, "UNETPP_MODELS": str(models), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
        started.append((process, log))
        line = process.stdout.readline()
        log.seek(0)
        assert line.startswith("Open "), line + log.read()
        return process, line.removeprefix("Open ").strip()

    yield start
    for process, log in started:
        below = process.children(recursive=True) if process.is_running() else []
        with contextlib.suppress(psutil.NoSuchProcess):  # the test ended it
            process.terminate()
        _, alive = psutil.wait_procs([process, *below], timeout=20)
        for each in alive:
            each.kill()
        log.close()
        assert not alive


@pytest.fixture
def a_page(chromium):
    """Call it to get a new page in its own context, of the shared browser or of another one."""
    contexts = []

    def page(browser=None):
        contexts.append((browser or chromium).new_context(viewport={"width": 1500, "height": 860}))
        return contexts[-1].new_page()

    yield page
    for context in contexts:
        if context.browser.is_connected():
            context.close()


@pytest.fixture
def a_doomed_browser(chromium):
    """A browser of its own, and a function that kills it."""
    psutil = pytest.importorskip("psutil")

    def below():
        return {each for each in psutil.Process().children(recursive=True) if "chrom" in each.name()}

    before = below()
    program = os.environ.get("UNETPP_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    browser = chromium.browser_type.launch(executable_path=program, args=["--no-sandbox"])
    processes = below() - before

    def kill():
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    yield browser, kill
    kill()
