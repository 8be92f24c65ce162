"""The Segment Statistics plugin: what the standard table says of any segment, on Slicer's real data model.

`Testing/support/segment_statistics.py` stands in for Slicer's module.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from Testing.support import segment_statistics
from Testing.support.mrml_scene import PLACES, add_volume, rotation, slicer
from Testing.support.slicer_qt.application import load_module
from UNetPlusPlusSegmentLib.core.segment import Segment
from UNetPlusPlusSegmentLib.core.volume import Volume
from UNetPlusPlusSegmentLib.nodule.measurements import measure_nodule
from UNetPlusPlusSegmentLib.scene import mrml, placement, showing

PACKAGE = "SegmentStatisticsUNetPlusPlusLib"
PLUGIN = "UNetPlusPlusSegmentStatisticsPlugin"
SPACING = np.diag([0.7, 0.7, 1.25, 1.0])
RADIUS_MM = 6.0


@pytest.fixture
def registry(slicer_app, monkeypatch):
    """Segment Statistics as other modules find it, without plugins."""
    for name in ("SegmentStatisticsPlugins", "SegmentStatistics"):
        monkeypatch.setitem(sys.modules, name, segment_statistics)
    registry = segment_statistics.SegmentStatisticsLogic
    monkeypatch.setattr(registry, "registeredPlugins", [])
    for name in [each for each in sys.modules if each.startswith(PACKAGE)]:
        monkeypatch.delitem(sys.modules, name)
    return registry


@pytest.fixture
def compute(scene, registry):
    """Segment Statistics with the plugin; call it to get the statistics of a segmentation, as its Apply does."""
    plugin = getattr(importlib.import_module(f"{PACKAGE}.{PLUGIN}"), PLUGIN)
    registry.registerPlugin(plugin())

    def compute(segmentationNode, volumeNode=None, **settings):
        logic = segment_statistics.SegmentStatisticsLogic()
        logic.getParameterNode().SetParameter("Segmentation", segmentationNode.GetID())
        logic.getParameterNode().SetParameter("ScalarVolume", volumeNode.GetID() if volumeNode else "")
        for name, value in settings.items():
            logic.getParameterNode().SetParameter(f"{PLUGIN}.{name}.enabled", value)
        logic.computeStatistics()
        logic.exportToTable(scene.AddNewNodeByClass("vtkMRMLTableNode"))
        return logic.getStatistics()

    return compute


def a_sphere(radius_mm: float = RADIUS_MM, tilt=None, hu: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """HU, mask and IJK to RAS of a ball in lung; its centre is a voxel's, and on every axis a voxel ends it."""
    reach = np.ceil(radius_mm / SPACING.diagonal()[:3]).astype(int) + 3
    k, j, i = np.ogrid[tuple(slice(-n, n + 1) for n in reach[::-1])]
    mask = (0.7 * i) ** 2 + (0.7 * j) ** 2 + (1.25 * k) ** 2 <= radius_mm**2
    ijk_to_ras = (np.eye(4) if tilt is None else tilt) @ SPACING
    ijk_to_ras[:3, 3] = [3.0, -20.0, 8.0]
    return np.where(mask, hu, -850).astype(np.int16), mask, ijk_to_ras


def a_segmentation(mask, volumeNode, name="by hand"):
    """A segmentation with this mask as its only segment, and the segment's ID."""
    segment = Segment(1, name, "", (255, 0, 0), {})
    node = showing.show_segmentation(mask.astype(np.uint8), [segment], volumeNode)
    return node, node.GetSegmentation().GetSegmentIDs()[-1]


def values(statistics, segmentID) -> dict:
    return {key[1].removeprefix(f"{PLUGIN}."): value for key, value in statistics.items() if key[0] == segmentID}


@pytest.mark.parametrize("radius_mm", [4.0, 6.0, 9.5])
def test_a_digital_sphere_has_the_axes_that_it_was_made_with(compute, radius_mm):
    hu, mask, ijk_to_ras = a_sphere(radius_mm)
    volumeNode = add_volume(hu, ijk_to_ras)
    segmentationNode, segmentID = a_segmentation(mask, volumeNode)
    found = values(compute(segmentationNode, volumeNode), segmentID)
    assert found["long_axis_mm"] == pytest.approx(2 * radius_mm, abs=0.35)  # half a pixel
    assert found["short_axis_mm"] == pytest.approx(2 * radius_mm, abs=0.35)
    assert found["mean_diameter_mm"] == pytest.approx((found["long_axis_mm"] + found["short_axis_mm"]) / 2)
    assert found["kind"] == "solid"


@pytest.mark.parametrize("with_volume", [True, False])
def test_of_two_nodules_in_one_segment_the_larger_one_is_measured(compute, with_volume):
    (_, large, ijk_to_ras), (_, small, _) = a_sphere(6.0), a_sphere(4.0)
    both = np.zeros((*large.shape[:2], 100), bool)
    both[:, :, : large.shape[2]] = large
    both[: small.shape[0], : small.shape[1], -small.shape[2] :] = small
    volumeNode = add_volume(np.where(both, 40, -850).astype(np.int16), ijk_to_ras)
    segmentationNode, segmentID = a_segmentation(both, volumeNode)
    found = values(compute(segmentationNode, volumeNode if with_volume else None), segmentID)
    assert found["long_axis_mm"] == pytest.approx(12, abs=0.35)
    assert found["mean_diameter_mm"] == pytest.approx(12, abs=0.35)


LINEAR = [place for place in PLACES if "grid" not in place and "B-spline" not in place]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("tilt", [np.eye(4), rotation(21, 0) @ rotation(-13, 1)], ids=["straight", "oblique"])
def test_a_segment_measures_what_it_does_in_the_nodule_table_wherever_transforms_put_it(compute, place, tilt):
    hu, mask, ijk_to_ras = a_sphere(tilt=tilt)
    mask[:, :, : mask.shape[2] // 2 - 1] = False  # a long and a short axis
    volumeNode = add_volume(hu, ijk_to_ras, transform=PLACES[place]())
    segmentationNode, segmentID = a_segmentation(mask, volumeNode)
    found = values(compute(segmentationNode, volumeNode), segmentID)
    expected = measure_nodule(mask, Volume(hu, placement.world_ijk_to_ras(volumeNode)))
    assert expected.long_axis_mm > 1.2 * expected.short_axis_mm
    # Segment Statistics hardens the transform first: under a non-linear one that resamples the segment.
    error_mm = 1e-6 if place in LINEAR else 0.7
    for key in ("long_axis_mm", "short_axis_mm", "mean_diameter_mm"):
        assert found[key] == pytest.approx(getattr(expected, key), abs=error_mm), key
    assert found["kind"] == expected.kind


@pytest.mark.parametrize(
    ("hu", "core_hu", "kind"), [(40, 40, "solid"), (-600, 40, "part-solid"), (-600, -600, "ground-glass")]
)
def test_the_kind_follows_the_hu_of_the_volume(compute, hu, core_hu, kind):
    array, mask, ijk_to_ras = a_sphere(hu=hu)
    k, j, i = np.array(mask.shape) // 2
    array[k - 1 : k + 2, j - 3 : j + 4, i - 3 : i + 4] = core_hu
    volumeNode = add_volume(array, ijk_to_ras)
    segmentationNode, segmentID = a_segmentation(mask, volumeNode)
    found, expected = (
        values(compute(segmentationNode, volumeNode), segmentID),
        measure_nodule(mask, Volume(array, ijk_to_ras)),
    )
    assert found["kind"] == kind
    assert found.get("solid_long_axis_mm") == pytest.approx(expected.solid_long_axis_mm)
    assert (kind == "part-solid") == ("solid_long_axis_mm" in found)


def test_what_is_no_ct_has_axes_but_no_kind(compute):
    hu, mask, ijk_to_ras = a_sphere()
    volumeNode = add_volume(hu + 1024, ijk_to_ras, "MR")
    segmentationNode, segmentID = a_segmentation(mask, volumeNode)
    found = values(compute(segmentationNode, volumeNode), segmentID)
    assert found.keys() == {"long_axis_mm", "short_axis_mm", "mean_diameter_mm"}


def test_a_volume_whose_image_is_replaced_is_looked_at_again(compute):
    hu, mask, ijk_to_ras = a_sphere()
    volumeNode = add_volume(hu, ijk_to_ras)
    segmentationNode, segmentID = a_segmentation(mask, volumeNode)
    assert values(compute(segmentationNode, volumeNode), segmentID)["kind"] == "solid"
    slicer.util.updateVolumeFromArray(volumeNode, hu + 1024)
    assert "kind" not in values(compute(segmentationNode, volumeNode), segmentID)


@pytest.mark.parametrize("place", ["no transform", "linear transform"])
def test_without_a_volume_a_segment_is_measured_on_its_own_grid(compute, place):
    hu, mask, ijk_to_ras = a_sphere(tilt=rotation(21, 0) @ rotation(-13, 1))
    volumeNode = add_volume(hu, ijk_to_ras, transform=PLACES[place]())
    segmentationNode, segmentID = a_segmentation(mask, volumeNode)
    found = values(compute(segmentationNode), segmentID)
    assert found.pop("mean_diameter_mm") == pytest.approx(2 * RADIUS_MM, abs=0.35)
    assert found.keys() == {"long_axis_mm", "short_axis_mm"}


def test_each_segment_of_a_shared_layer_and_a_finer_hand_drawn_one_are_measured_by_themselves(compute):
    hu, mask, ijk_to_ras = a_sphere()
    volumeNode = add_volume(hu, ijk_to_ras)
    labelmap = mask.astype(np.uint8)
    labelmap[:, :, : mask.shape[2] // 2] *= 2
    segments = [Segment(value, f"half {value}", "", (255, 0, 0), {}) for value in (1, 2)]
    segmentationNode = showing.show_segmentation(labelmap, segments, volumeNode)
    fine = ijk_to_ras @ np.diag([0.5, 0.5, 0.5, 1.0])
    fineNode = add_volume(np.zeros([2 * n for n in mask.shape], np.int16), fine, "finer grid")
    showing.show_segmentation(
        np.kron(mask, np.ones((2, 2, 2), np.uint8)).astype(np.uint8),
        [Segment(1, "fine", "", (0, 0, 255), {})],
        fineNode,
        segmentationNode,
    )
    statistics = compute(segmentationNode, volumeNode)
    first, second, drawn = (values(statistics, segmentID) for segmentID in statistics["SegmentIDs"])
    for value, found in ((1, first), (2, second)):
        expected = measure_nodule(labelmap == value, Volume(hu, ijk_to_ras))
        assert found["long_axis_mm"] == pytest.approx(expected.long_axis_mm)
        assert found["short_axis_mm"] == pytest.approx(expected.short_axis_mm)
    assert drawn["mean_diameter_mm"] == pytest.approx(2 * RADIUS_MM, abs=0.5)


def test_an_empty_segment_and_one_outside_the_volume_have_no_measurements_and_leave_the_table_whole(compute):
    hu, mask, ijk_to_ras = a_sphere()
    volumeNode = add_volume(hu, ijk_to_ras)
    segmentationNode, segmentID = a_segmentation(np.zeros_like(mask), volumeNode)
    emptyID = segmentationNode.GetSegmentation().AddEmptySegment()
    far = ijk_to_ras.copy()
    far[0, 3] += 500
    for name, grid in (("far", far), ("near", ijk_to_ras)):
        showing.show_segmentation(
            mask.astype(np.uint8), [Segment(1, name, "", (0, 0, 255), {})], add_volume(hu, grid), segmentationNode
        )
    farID, nearID = segmentationNode.GetSegmentation().GetSegmentIDs()[2:]
    statistics = compute(segmentationNode, volumeNode)
    for each in (segmentID, emptyID, farID):
        assert values(statistics, each) == {"kind": ""}
    assert len(values(statistics, nearID)) == 4
    statistics = compute(segmentationNode)
    assert not values(statistics, segmentID)
    assert not values(statistics, emptyID)
    assert values(statistics, farID) == pytest.approx(values(statistics, nearID))


def test_only_what_is_asked_for_is_measured(compute):
    hu, mask, ijk_to_ras = a_sphere()
    volumeNode = add_volume(hu, ijk_to_ras)
    segmentationNode, segmentID = a_segmentation(mask, volumeNode)
    assert values(compute(segmentationNode, volumeNode, kind="False"), segmentID).keys() == {
        "long_axis_mm", "short_axis_mm", "mean_diameter_mm"
    }  # fmt: skip
    none = dict.fromkeys(("long_axis_mm", "short_axis_mm", "mean_diameter_mm", "kind", "solid_long_axis_mm"), "False")
    assert not values(compute(segmentationNode, volumeNode, **none), segmentID)


def test_lengths_carry_the_codes_that_dicom_has_for_them(compute):
    hu, mask, ijk_to_ras = a_sphere()
    volumeNode = add_volume(hu, ijk_to_ras)
    segmentationNode, _ = a_segmentation(mask, volumeNode)
    about = {
        key.removeprefix(f"{PLUGIN}."): info
        for key, info in compute(segmentationNode, volumeNode)["MeasurementInfo"].items()
    }
    dictionary = pytest.importorskip("pydicom.sr.codedict").codes
    for key, code in (
        ("long_axis_mm", dictionary.SCT.LongAxis),
        ("short_axis_mm", dictionary.SCT.ShortAxis),
        ("mean_diameter_mm", dictionary.SCT.Diameter),
    ):
        entry = slicer.vtkCodedEntry()
        assert entry.SetFromString(about[key]["DICOM.QuantityCode"])
        assert (entry.GetCodeValue(), entry.GetCodingSchemeDesignator()) == (code.value, code.scheme_designator)
        assert entry.GetCodeMeaning().lower() == code.meaning.lower()
        assert entry.SetFromString(about[key]["DICOM.UnitsCode"])
        assert (entry.GetCodeValue(), entry.GetCodingSchemeDesignator()) == ("mm", "UCUM")
        assert about[key]["units"] == "mm"
    assert entry.SetFromString(about["mean_diameter_mm"]["DICOM.DerivationCode"])
    assert entry.GetCodeValue() == dictionary.SCT.Mean.value
    assert about["kind"]["title"] == "Nodule kind"  # the word of the tables
    assert not [name for name in about["kind"] if name.startswith("DICOM.")]


def test_the_module_registers_the_plugin_at_start_up(registry, monkeypatch):
    module = Path(mrml.__file__).parents[2] / "UNetPlusPlusSegment.py"
    monkeypatch.setitem(sys.modules, module.stem, None)  # taken away again afterwards
    load_module(module)
    assert [plugin.__name__ for plugin in registry.registeredPlugins] == [PLUGIN]
