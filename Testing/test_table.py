"""Tables: one set of columns, and numbers as exact as they are known."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from UNetPlusPlusSegmentLib import __version__
from UNetPlusPlusSegmentLib.core.masks import measure
from UNetPlusPlusSegmentLib.core.table import COLUMNS, rounded, rows_of
from UNetPlusPlusSegmentLib.core.volume import Volume
from UNetPlusPlusSegmentLib.nodule.measurements import measure_nodule


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("volume_ml", 1146.2718281828, "1146"),
        ("volume_ml", 0.0342000001, "0.0342"),
        ("volume_ml", 0.0, "0"),
        ("dropped_ml", 12.34567, "12.35"),
        ("volume_mm3", 1234567.8, "1235000"),
        ("surface_cm2", np.float64(1255.67), "1256"),
        ("long_axis_mm", 14.2649, "14.3"),
        ("extent_s_mm", 150.0, "150"),
        ("mean_diameter_rounded_mm", 12, "12"),
        ("mean_hu", -0.3, "0"),
        ("p95_hu", 132.49, "132"),
        ("solid_share", 0.98765, "0.99"),
        ("expected_dice", 0.9512, "0.95"),
        ("probability", 0.7684234771953069, "0.77"),
        ("expected_dice_low", 0.9049, "0.9"),
        ("threshold", 0.375, "0.375"),
        ("mean_hu", float("nan"), "nan"),
        ("mean_hu", None, "None"),
        ("cut_by_scan", True, "True"),
        ("kind", "solid", "solid"),
    ],
)
def test_a_number_has_the_digits_that_mean_something(column, value, text):
    assert str(rounded(column, value)) == text


@pytest.mark.parametrize("volume_ml", np.geomspace(1e-4, 1e5, 200))
def test_a_volume_is_kept_to_a_thousandth_of_itself(volume_ml):
    assert rounded("volume_ml", volume_ml) == pytest.approx(volume_ml, rel=1e-3)


def test_a_row_has_all_columns_in_their_order_and_unknown_measurements_behind_them():
    measured = {
        "volume_ml": 1.5, "centroid_ras": (1.0, -2.04, 3.0), "long_axis_ras": ((0.0,) * 3,) * 2, "extent_ras": None,
        "lobe": "left",
    }  # fmt: skip
    (row,) = rows_of("pat01", [("Nodule 1", measured)], model="m-v1", notes=["One.", "Two."])
    assert list(row) == [*COLUMNS, "lobe"]
    known = {name: value for name, value in row.items() if value is not None}
    assert known == {
        "case": "pat01", "segment": "Nodule 1", "volume_ml": 1.5, "centroid_r_mm": 1, "centroid_a_mm": -2,
        "centroid_s_mm": 3, "status": "done", "notes": "One. Two.", "model": "m-v1", "version": __version__,
        "lobe": "left",
    }  # fmt: skip


def test_what_is_measured_of_an_organ_or_of_a_nodule_has_its_column():
    draw = np.random.default_rng(0)
    mask = np.zeros((9, 20, 20), bool)
    mask[3:6, 5:12, 6:14] = True
    volume = Volume(draw.normal(0, 20, mask.shape), np.diag([-0.7, -0.7, 2.0, 1]))
    nodule = asdict(measure_nodule(mask, volume, np.ones_like(mask))) | {"probability": 0.8, "cut_by_scan": []}
    for measured in (measure(mask, volume), nodule):
        (row,) = rows_of("pat01", [("A", measured)])
        assert list(row) == list(COLUMNS)


def test_a_case_without_segments_still_says_how_it_was_run():
    (row,) = rows_of("pat01", [], model="m-v1", notes=["No nodule was found."])
    assert list(row) == list(COLUMNS)
    assert (row["segment"], row["status"], row["notes"]) == ("", "done", "No nodule was found.")
