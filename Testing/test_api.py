"""The library as a Python user calls it."""

from __future__ import annotations

import numpy as np
import pytest

import UNetPlusPlusSegmentLib as unetpp
from Testing.support.bodies import body
from Testing.support.bright import BRIGHT_HU, bright_bundle, bright_nodule_bundle
from Testing.support.nodule_scans import A, lung_with, ras
from UNetPlusPlusSegmentLib import files
from UNetPlusPlusSegmentLib.core.request import Request, RequestError
from UNetPlusPlusSegmentLib.engine.organ import SliceEngine
from UNetPlusPlusSegmentLib.nodule.engine import NoduleEngine


@pytest.fixture(autouse=True)
def models(tmp_path, monkeypatch):
    """A model for the liver and one for nodules, newer than any."""
    bright_bundle(tmp_path / "models" / "liver-ct-v99.0.0")
    bright_nodule_bundle(tmp_path / "models" / "lung-nodule-ct-v99.0.0")
    monkeypatch.setenv("UNETPP_MODELS", str(tmp_path / "models"))


def test_a_volume_and_a_file_of_it_are_segmented_in_one_call(tmp_path):
    volume = body()
    files.write_volume(tmp_path / "ct.nrrd", volume.array, volume.ijk_to_ras)
    for given in (volume, tmp_path / "ct.nrrd", str(tmp_path / "ct.nrrd")):
        result = unetpp.segment(given, device="cpu")
        np.testing.assert_array_equal(result.labelmap, volume.array >= BRIGHT_HU)
        assert (result.model, result.segments[0].name) == ("liver-ct-v99.0.0", "Liver")


def test_nodules_are_segmented_at_points_and_in_a_box():
    volume = lung_with(A)
    for where in ({"points": [ras((10, 50, 40))]}, {"box": [(0, 30), (0, 140), (0, 150)]}):
        np.testing.assert_array_equal(unetpp.segment(volume, "nodule", device="cpu", **where).labelmap == 1, A)


def test_what_makes_no_sense_is_refused_before_the_file_is_looked_for():
    with pytest.raises(RequestError, match="Unknown speed 'warp'"):
        unetpp.segment("no such file", speed="warp")


def test_an_engine_is_loaded_for_a_target_and_used_for_many_thresholds():
    maps = unetpp.load_engine("liver", "cpu").predict(body(spacing_mm=(1.5, 1.5, 3.0)), Request())
    assert 0 < maps.at(0.9).labelmap.sum() < maps.at().labelmap.sum()


def test_the_engine_is_the_one_that_the_card_names(tmp_path):
    nodules = bright_nodule_bundle(tmp_path / "spots-v1.0.0", target="spots", engine="nodule")
    assert isinstance(unetpp.load_engine(nodules, "cpu"), NoduleEngine)
    organ = bright_bundle(tmp_path / "spleen-v1.0.0", target="spleen")
    assert isinstance(unetpp.load_engine(organ, "cpu"), SliceEngine)


def test_an_engine_refuses_a_request_for_another_target():
    with pytest.raises(RequestError, match=r"liver-ct-v99\.0\.0 is for liver, not for nodule"):
        unetpp.load_engine("liver", "cpu").predict(body(), Request("nodule"))
