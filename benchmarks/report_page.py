"""The report of a cohort of made-up cases: the time to write it, until a browser has opened it, and until it has reacted to two keys.

    python benchmarks/report_page.py --cases 1000 --segments 1 5

Needs Playwright, and Chromium or the browser that UNETPP_CHROMIUM names.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for Testing

from playwright.sync_api import Browser, sync_playwright

from Testing.support.cohort_folder import case, make_cohort
from UNetPlusPlusSegmentLib.jobs.report import SHOWN, make_report

MARKED = "document.querySelector('.current .accept')?.ariaPressed === 'true'"


def line_with(segments: int) -> Callable[[int], dict]:
    """A function that makes the manifest line of a case with this many segments, each with all measurements."""

    def line(number: int) -> dict:
        record = case(number)
        if record["status"] != "done":
            return record
        liver = record["measurements"]["Liver"]
        full = {**dict.fromkeys(SHOWN, 123.4), **liver, "kind": "solid", "cut_by_scan": ["inferior"]}
        full["doubtful_slices"] = [{"k": 100 + n, "s_mm": -660.8 + n} for n in range(3)]
        return {**record, "measurements": {f"Segment {n}": full for n in range(1, segments + 1)}}

    return line


def opened_s(browser: Browser, page_file: Path, cases: int) -> tuple[float, float]:
    """Seconds until a new visitor's page has loaded, and until it shows the effect of two keys."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    started = time.perf_counter()
    page.goto(page_file.as_uri())
    loaded = time.perf_counter() - started
    page.keyboard.press("n")
    page.keyboard.press("a")
    while not page.evaluate(MARKED):
        time.sleep(0.005)
    page.evaluate("new Promise((shown) => requestAnimationFrame(() => requestAnimationFrame(shown)))")
    answered = time.perf_counter() - started
    if page.locator(".case").count() != cases:
        raise RuntimeError(f"The page does not show {cases} cases.")
    context.close()
    return loaded, answered


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--segments", type=int, nargs="+", default=[1, 5], help="segments of each case")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    program = os.environ.get("UNETPP_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for segments in given.segments:
            cohort = make_cohort(Path(folder) / str(segments), given.cases, line_with(segments))
            started = time.perf_counter()
            page_file = make_report(cohort)
            made = time.perf_counter() - started
            rounds = [opened_s(browser, page_file, given.cases) for _ in range(given.rounds)]
            loaded, answered = (
                f"{statistics.median(each):.2f} (to {max(each):.2f})" for each in zip(*rounds, strict=True)
            )
            print(
                f"{given.cases} cases of {segments} segments, {page_file.stat().st_size / 1e6:.1f} MB: made in {made:.1f} s,"
                f" opened in {loaded} s, two keys answered in {answered} s"
            )
        browser.close()


if __name__ == "__main__":
    main()
