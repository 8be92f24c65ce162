"""Cohorts that run at once, because no network computes.

Imports are inside the fixtures: tests that do not use them load neither torch nor slicer.
"""

from __future__ import annotations

import pytest


@pytest.fixture
def run(bundle):
    """A function that runs a cohort, and returns the status of each case by its name."""
    from Testing.support.quick_cohorts import Finder
    from UNetPlusPlusSegmentLib.core.request import Request
    from UNetPlusPlusSegmentLib.jobs.cohort import one_after_the_other, run_cohort

    def run(inputs, out, forms=(), series=None, **asked) -> dict[str, str]:
        request = Request(**{"model": bundle, "device": "cpu", **asked})
        records = run_cohort(one_after_the_other(Finder()), inputs, out, request, series=series, forms=forms)
        return {each["case"]: each["status"] for each in records}

    return run


@pytest.fixture
def scans(tmp_path):
    """A folder with the scan `a.nii.gz`."""
    from Testing.support.quick_cohorts import add_scan

    (tmp_path / "in").mkdir()
    add_scan(tmp_path / "in" / "a.nii.gz")
    return tmp_path / "in"
