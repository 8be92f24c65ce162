"""Slices in threads of their own: in order, few at a time, with one of torch's threads each and the caller's number afterwards."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from Testing.support.bright import bright_bundle, segmented
from UNetPlusPlusSegmentLib.core.request import Request, RequestError
from UNetPlusPlusSegmentLib.core.volume import Volume
from UNetPlusPlusSegmentLib.engine import predictor, slice_pool
from UNetPlusPlusSegmentLib.engine.organ import SliceEngine
from UNetPlusPlusSegmentLib.engine.slice_pool import AHEAD, in_order, threads_of_torch
from UNetPlusPlusSegmentLib.network.bundle import choose_bundle

SPEEDS = ("accurate", "balanced", "fast")


@pytest.fixture(autouse=True)
def two_threads_of_torch(monkeypatch):
    """Whatever the machine has."""
    monkeypatch.setattr(slice_pool, "cores", lambda: 4)
    own = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2
    torch.set_num_threads(own)


@pytest.fixture(scope="module")
def engine(tmp_path_factory) -> SliceEngine:
    return SliceEngine(bright_bundle(tmp_path_factory.mktemp("models") / "bright-v1.0.0"), "cpu")


def in_new_thread(function):
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def body(slices=40) -> Volume:
    array = np.random.default_rng(0).integers(-900, 50, (slices, 60, 70)).astype(np.int16)
    array[slices // 4 : slices // 2, 20:45, 15:50] = 90
    return Volume(array, np.diag([2.0, 2.0, 4.0, 1.0]))


def test_answers_come_in_the_order_of_the_items_whoever_is_done_first():
    def slow_at_first(n):
        time.sleep(0.02 * (3 - n % 4))
        return n

    assert list(in_order(slow_at_first, range(12), 4)) == list(range(12))


def test_a_task_has_a_thread_with_one_of_torchs_and_the_caller_keeps_its_own_number():
    seen = list(in_order(lambda _: (threading.get_ident(), torch.get_num_threads()), range(8), 3))
    assert {number for _, number in seen} == {1}
    assert threading.get_ident() not in {thread for thread, _ in seen}
    assert torch.get_num_threads() == 2
    assert in_new_thread(torch.get_num_threads) == 2  # torch also keeps a number for threads to come


def test_runs_at_once_in_two_threads_keep_the_number_of_each_and_of_threads_to_come(engine):
    begun, may_end = threading.Event(), threading.Event()

    def wait(*_):
        begun.set()
        may_end.wait()

    def run(threads, progress):
        engine.predict(body(), Request(speed="accurate", threads=threads), progress)
        return torch.get_num_threads()

    with ThreadPoolExecutor(1) as other:
        one = other.submit(run, 1, wait)
        begun.wait()
        three = in_new_thread(lambda: run(3, lambda *_: None))
        may_end.set()
        assert (one.result(), three) == (2, 2)
    assert in_new_thread(torch.get_num_threads) == 2


def test_a_caller_with_a_number_of_its_own_leaves_that_of_threads_to_come_alone(engine):
    def run():
        torch.get_num_threads()
        torch.set_num_threads(3)
        in_new_thread(lambda: torch.set_num_threads(2))
        engine.predict(body(), Request(speed="accurate")).at()
        return torch.get_num_threads()

    assert in_new_thread(run) == 3
    assert in_new_thread(torch.get_num_threads) == 2


def test_no_more_threads_are_used_than_there_are_cores():
    for number in (5, 10**12):
        with threads_of_torch(number):
            assert torch.get_num_threads() == 4
    torch.set_num_threads(9)
    try:
        with threads_of_torch(None):
            assert torch.get_num_threads() == 4
        assert torch.get_num_threads() == 9
    finally:
        torch.set_num_threads(2)


def test_a_task_still_has_one_of_torchs_threads_after_its_first_layer():
    def after_a_layer(_):
        torch.nn.functional.conv2d(torch.ones(1, 8, 64, 64), torch.ones(8, 8, 3, 3))
        return torch.get_num_threads()

    assert set(in_order(after_a_layer, range(6), 2)) == {1}


def test_one_item_alone_has_the_callers_thread_with_all_of_torchs():
    here = threading.get_ident(), 2
    assert list(in_order(lambda _: (threading.get_ident(), torch.get_num_threads()), [0])) == [here]


def test_what_a_task_calls_in_turn_runs_in_its_own_thread():
    def nested(_):
        return {threading.get_ident()} == {*in_order(lambda _: threading.get_ident(), range(4))}

    assert all(in_order(nested, range(4)))


def test_no_more_than_a_few_are_computed_ahead_of_whoever_takes_them():
    begun = []
    answers = in_order(begun.append, range(100), 2)
    next(answers)
    time.sleep(0.1)
    assert len(begun) <= AHEAD * 2
    answers.close()
    assert len(begun) <= AHEAD * 2


def test_the_first_error_ends_the_run_once_in_its_own_words_and_no_thread_stays():
    begun, before = [], threading.active_count()

    def third_fails(n):
        begun.append(n)
        if n >= 2:
            raise ValueError(f"slice {n} is broken")
        return n

    answers = in_order(third_fails, range(100), 2)
    assert [next(answers), next(answers)] == [0, 1]
    with pytest.raises(ValueError, match="slice 2 is broken"):
        next(answers)
    assert len(begun) < 10
    assert threading.active_count() == before


def test_after_an_error_the_other_tasks_end_before_their_next_item():
    done, both = [], threading.Barrier(2)

    def many(n):
        both.wait()
        if n == 0:
            raise ValueError("broken")
        for k in in_order(lambda k: k, range(100)):
            time.sleep(0.02)
            done.append(k)

    with pytest.raises(ValueError, match="broken"):
        list(in_order(many, range(2), 2))
    assert len(done) < 50


def test_an_error_in_a_layer_of_any_thread_ends_the_run():
    """This is how a worker process cancels a job."""
    engine_threads = set()

    def cancelled(*_):
        engine_threads.add(threading.get_ident())
        raise InterruptedError("cancelled")

    layer = torch.nn.ReLU()
    hook = register_module_forward_pre_hook(cancelled)
    try:
        with pytest.raises(InterruptedError):
            list(in_order(lambda _: layer(torch.ones(1)), range(50), 2))
    finally:
        hook.remove()
    assert threading.get_ident() not in engine_threads


def test_a_run_fails_without_waiting_if_the_system_has_no_more_threads(monkeypatch):
    start, before = threading.Thread.start, threading.active_count()

    def only_one(thread):
        if threading.active_count() > before:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", only_one)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        list(in_order(lambda n: n, range(8), 3))
    assert threading.active_count() == before
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("speed", SPEEDS)
def test_one_thread_and_several_give_the_same_maps_bit_for_bit(engine, speed):
    maps = [engine.predict(body(), Request(speed=speed, device="cpu", threads=n)) for n in (1, 2, 3)]
    for other in maps[1:]:
        assert other.slices == maps[0].slices
        np.testing.assert_array_equal(other.pixels.probability, maps[0].pixels.probability)
        np.testing.assert_array_equal(other.pixels.uncertainty, maps[0].pixels.uncertainty)
        np.testing.assert_array_equal(other.at().labelmap, maps[0].at().labelmap)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["liver", "nodule"])
def test_one_thread_and_several_give_the_same_mask_on_a_real_scan(shared_data, target):
    from UNetPlusPlusSegmentLib.api import load_engine, read_volume

    file = {"liver": "volumes/abdomen_dicom", "nodule": "volumes/LIDC-IDRI-0001_ct.nii.gz"}[target]
    volume, _ = read_volume(shared_data(file))
    engine = load_engine(choose_bundle(target), "cpu")
    one, two = (segmented(engine, volume, threads=n) for n in (1, 2))
    np.testing.assert_array_equal(one.labelmap, two.labelmap)
    assert one.segments == two.segments


def test_progress_counts_slices_in_any_number_of_threads(engine):
    seen = []
    engine.predict(body(), Request(speed="accurate", threads=3), lambda *numbers: seen.append(numbers))
    assert [done for done, *_ in seen] == sorted(done for done, *_ in seen)
    assert seen[-1] == (40, 40, "slices")


def test_whoever_raises_in_progress_finds_no_thread_at_work_after(engine):
    def enough(done, total, phase):
        raise InterruptedError(f"{done} of {total}")

    before = threading.active_count()
    with pytest.raises(InterruptedError, match="of 40"):
        engine.predict(body(), Request(speed="accurate", threads=3), enough)
    assert threading.active_count() == before


def test_where_memory_does_not_hold_all_threads_fewer_run_and_the_mask_is_the_same(engine, monkeypatch):
    expected, small = segmented(engine, body(), speed="accurate"), SliceEngine(engine.bundle, "cpu")
    run, lock, now = SliceEngine._run, threading.Lock(), 0

    def one_at_a_time(*arguments):
        nonlocal now
        with lock:
            now += 1
            too_many = now > 1
        try:
            time.sleep(0.01)
            if too_many:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.")
            return run(*arguments)
        finally:
            with lock:
                now -= 1

    monkeypatch.setattr(predictor.Predictor, "_run", one_at_a_time)
    result = segmented(small, body(), speed="accurate", threads=4)
    np.testing.assert_array_equal(result.labelmap, expected.labelmap)
    assert [note.kind for note in result.notes] == ["smaller-batches"]


def test_a_request_without_a_thread_is_refused():
    with pytest.raises(RequestError, match="1 or more; got 0"):
        Request(threads=0)
