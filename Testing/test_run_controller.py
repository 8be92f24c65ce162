"""The controller of runs: who is told what and when, whoever polls. On made-up runs, but for the last test."""

from __future__ import annotations

from collections import deque

import pytest

from Testing.support.mrml_scene import add_volume
from Testing.support.slicer_qt.application import wait_until
from Testing.support.slicer_qt.pythonqt import start
from Testing.support.worker_logic import GRID, a_scan
from UNetPlusPlusSegmentLib.jobs.protocol import JobError
from UNetPlusPlusSegmentLib.scene.logic import Segmenter

start()
from UNetPlusPlusSegmentUILib.controller import RunController  # noqa: E402 (brings qt)


class ALogic:
    """Each poll takes the next of `events`, which change runs."""

    def __init__(self):
        self.events = deque()

    @property
    def busy(self) -> bool:
        return bool(self.events)

    def poll(self) -> None:
        if self.events:
            self.events.popleft()()


class ARun:
    """A run with one job, which ends as the test says."""

    def __init__(self, logic):
        self.running, self.jobs, self.result, self.error = True, {1}, None, None
        self._logic = logic

    def end(self, result=None, error=None) -> None:
        self.running, self.jobs = False, set()
        self.result, self.error = result or self.result, error

    def set_threshold(self, threshold) -> None:
        if threshold > 1:
            raise ValueError("too high")
        if threshold != self.result:
            self.error, self.jobs = None, {2}
            self._logic.events.append(lambda: self.end(threshold))

    def set_show_from(self, probability) -> None:
        """Nothing has a probability."""


class AWatcher:
    """Writes down what it is told."""

    def __init__(self):
        self.told = []

    def onRunProgress(self, run):
        self.told.append("progress")

    def onRunEnded(self, run):
        self.told.append(("ended", run.result))

    def onRunFailed(self, run, error):
        self.told.append(("failed", str(error)))

    def onThresholdChanged(self, run):
        self.told.append(("threshold", run.result))

    def onThresholdRefused(self, run, error):
        self.told.append(("refused", str(error)))

    @property
    def told_at_the_end(self) -> list:
        return [each for each in self.told if each != "progress"]


@pytest.fixture
def logic():
    return ALogic()


@pytest.fixture
def controller(slicer_app, logic):
    controller = RunController(logic)
    yield controller
    controller.close()


def rest(controller) -> None:
    """Until the controller polls no more."""
    wait_until(lambda: not controller._timer.isActive())


def test_progress_is_told_until_the_end_is_told_once(controller, logic):
    run, watcher = ARun(logic), AWatcher()
    logic.events.extend([lambda: None, lambda: None, lambda: run.end("mask"), lambda: None])
    assert controller.watch(run, watcher) is run
    rest(controller)
    assert watcher.told == ["progress", "progress", ("ended", "mask")]


@pytest.mark.parametrize("result", [None, "mask"], ids=["nothing", "a result without its maps"])
def test_a_failure_is_told_after_the_result_if_there_is_one(controller, logic, result):
    run, watcher = ARun(logic), AWatcher()
    logic.events.append(lambda: run.end(result, ValueError("no memory")))
    controller.watch(run, watcher)
    rest(controller)
    assert watcher.told == [("ended", "mask")] * bool(result) + [("failed", "no memory")]


def test_each_watcher_is_told_of_its_own_run_also_when_a_script_polls_or_cancels(controller, logic):
    (panel, effect), (first, second) = (AWatcher(), AWatcher()), (ARun(logic), ARun(logic))
    controller.watch(first, panel)
    controller.watch(second, effect)
    logic.events.extend([lambda: first.end("mask"), lambda: second.end(error=JobError("cancelled", "Cancelled."))])
    while logic.busy:
        logic.poll()
    assert panel.told == effect.told == []  # a message box would hold the script up
    rest(controller)
    assert panel.told == [("ended", "mask")]
    assert effect.told == [("failed", "Cancelled.")]


def test_a_threshold_is_told_when_it_is_applied_or_refused(controller, logic):
    run, watcher = ARun(logic), AWatcher()
    logic.events.append(lambda: run.end(0.5))
    controller.watch(run, watcher)
    rest(controller)
    controller.setThreshold(run, 0.5)  # as it is
    assert not controller._timer.isActive()
    controller.setThreshold(run, 0.7)
    rest(controller)
    controller.setThreshold(run, 2.0)
    logic.events.clear()
    assert watcher.told == [("ended", 0.5), ("threshold", 0.7), ("refused", "too high")]
    controller.setThreshold(run, 0.3)
    logic.events[-1] = lambda: run.end(error=ValueError("edited"))
    rest(controller)
    assert watcher.told[-1] == ("refused", "edited")


def test_a_threshold_that_is_set_while_the_run_is_under_way_hides_no_end(controller, logic):
    run, watcher = ARun(logic), AWatcher()
    controller.watch(run, watcher)
    logic.events.append(lambda: run.end(0.5))
    run.set_threshold = lambda threshold: None  # a run keeps the wish until it has a result
    controller.setThreshold(run, 0.7)
    rest(controller)
    assert watcher.told_at_the_end == [("ended", 0.5)]


def test_a_watcher_that_sets_a_threshold_on_a_failure_is_told_of_both(controller, logic):
    run, watcher = ARun(logic), AWatcher()
    watcher.onRunEnded = lambda run: controller.setThreshold(run, 0.7)  # which clears the run's error
    logic.events.append(lambda: run.end(0.5, ValueError("no maps")))
    controller.watch(run, watcher)
    rest(controller)
    assert watcher.told == [("failed", "no maps"), ("threshold", 0.7)]


def test_a_forgotten_run_is_told_to_nobody_but_polled_until_it_has_ended(controller, logic):
    run, other, watcher = ARun(logic), ARun(logic), AWatcher()
    logic.events.extend([lambda: run.end("mask"), lambda: other.end("mask")])
    controller.watch(run, watcher)
    controller.watch(other, AWatcher()).end("mask")
    controller.forget(run)
    controller.forget(other)
    rest(controller)
    assert watcher.told == []
    assert not logic.events


def test_a_watcher_may_forget_the_run_of_another_when_told(controller, logic):
    (first, second), (one, other) = (ARun(logic), ARun(logic)), (AWatcher(), AWatcher())
    one.onRunEnded = lambda run: controller.forget(second)
    controller.watch(first, one)
    controller.watch(second, other)
    logic.events.append(lambda: (first.end("mask"), second.end("mask")))
    rest(controller)
    assert other.told_at_the_end == []


def test_a_message_box_holds_nobody_else_up_and_comes_once(controller, logic):
    (first, second), (one, other) = (ARun(logic), ARun(logic)), (AWatcher(), AWatcher())
    boxes = []

    def box(run, error):  # it runs the event loop
        boxes.append(error)
        wait_until(lambda: other.told_at_the_end)

    one.onRunFailed = box
    controller.watch(first, one)
    controller.watch(second, other)
    logic.events.extend([lambda: first.end(error=ValueError("no memory")), lambda: second.end("mask")])
    rest(controller)
    assert len(boxes) == 1
    assert other.told_at_the_end == [("ended", "mask")]


def test_a_logic_that_is_closed_ends_its_runs_and_their_watchers_hear_of_it(slicer_app, models, scene):
    logic = Segmenter()
    controller, watcher = RunController(logic), AWatcher()
    run = controller.watch(logic.start(add_volume(a_scan(), GRID)), watcher)
    logic.close()
    assert not run.running
    controller.close()
    assert watcher.told == [("failed", "Cancelled.")]
