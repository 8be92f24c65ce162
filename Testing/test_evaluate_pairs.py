"""evaluate.py --pairs: whole CTs with their truth, measured through the engine of users, on cubes with figures computed by hand."""

import json

import numpy as np
import pytest

import evaluate as evaluation
from measure import whole_pairs
from measure.pooled import Pooled
from Testing.support.bright import bright_bundle
from Testing.support.pairs import write_nifti
from Testing.support.spleen import TERM
from UNetPlusPlusSegmentLib.core.segment import Segment
from UNetPlusPlusSegmentLib.engine.organ import SliceEngine
from UNetPlusPlusSegmentLib.files import write_segmentation, write_volume

GRID = np.diag([-2.0, -2.0, 4.0, 1.0])
LIVER = Segment(1, "Liver", TERM, (1, 2, 3), {})
SHAPE = (12, 48, 48)


def cube(k: int, row: int, column: int, side: int = 16) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[k : k + 6, row : row + side, column : column + side] = True
    return mask


@pytest.fixture
def bundle(tmp_path):
    return bright_bundle(tmp_path / "bright-ct-v0.0.1", 2.0, postprocessing={})


def write_case(folder, name: str, bright: np.ndarray, truth: np.ndarray, segments=(LIVER,)) -> None:
    folder.mkdir(exist_ok=True)
    write_volume(folder / f"{name}.nrrd", np.where(bright, 130, -90).astype(np.int16), GRID)
    write_segmentation(folder / f"{name}.seg.nrrd", truth.astype(np.uint8), GRID, segments)


def test_a_cube_found_two_pixels_off_has_the_dice_volume_and_distance_computed_by_hand(bundle, tmp_path, capsys):
    write_case(tmp_path / "cases", "Ann", cube(3, 10, 12), cube(3, 10, 10))
    write_case(tmp_path / "cases", "Ben", cube(3, 10, 10, side=20), cube(3, 10, 10))
    assert evaluation.main([str(bundle.folder), "--pairs", str(tmp_path / "cases"), "--speed", "accurate"]) == 0
    figures = json.loads(capsys.readouterr().out)
    liver = figures["labels"]["Liver"]
    ann, ben = (liver["patients"][name] for name in ("Ann", "Ben"))
    assert ann["dice"] == pytest.approx(14 / 16, abs=1e-3)
    assert ann["volume_ml"] == ann["true_volume_ml"] == pytest.approx(16 * 16 * 6 * 0.016, abs=0.01)
    assert (ann["volume_error_percent"], ann["hausdorff95_mm"]) == (0, 4.0)
    assert ben["volume_error_percent"] == pytest.approx(100 * (20**2 / 16**2 - 1), abs=0.1)
    assert liver["dice"] == pytest.approx((ann["dice"] + ben["dice"]) / 2, abs=1e-4)
    assert (figures["cases"], figures["surface_tolerance_mm"]) == (2, 2.0)
    assert "--pairs <pairs>" in figures["command"]


def test_surface_distances_are_measured_in_3d_on_voxels_that_are_not_cubes():
    found, truth = cube(3, 10, 10), cube(4, 10, 10)  # a slice higher: 4 mm
    pooled = Pooled()
    pooled.add_volume(found, truth, (4.0, 2.0, 2.0))
    figures = pooled.figures()
    assert (figures["hausdorff95_mm"], figures["dice"]) == (4.0, round(5 / 6, 4))
    # The outlines of five common slices meet; lids and the slices beyond lie 4 mm off or nearer.
    sides, lid = 4 * 15, 16 * 16
    assert figures["surface_dice"] > 5 * sides / (6 * sides + 2 * lid)
    missed = Pooled()
    missed.add_volume(np.zeros(SHAPE, bool), truth, (4.0, 2.0, 2.0))
    assert missed.figures()["hausdorff95_mm"] is None and missed.figures()["surface_dice"] == 0
    nothing = Pooled()
    nothing.add_volume(found, np.zeros(SHAPE, bool), (4.0, 2.0, 2.0))
    assert nothing.figures() == {"worst_false_mm2": 16 * 16 * 4.0}


def test_the_truth_of_a_label_may_have_another_name_and_stored_axes(bundle, tmp_path, capsys):
    folder = tmp_path / "cases" / "s1"
    truth = cube(3, 10, 10)
    write_nifti(folder / "ct.nii.gz", np.where(truth, 130, -90).astype(np.int16), GRID)
    write_nifti(folder / "segmentations" / "hepar.nii.gz", truth.astype(np.uint8), GRID, stored_as="SRA")
    arguments = [str(bundle.folder), "--pairs", str(tmp_path / "cases")]
    assert evaluation.main(arguments) == 1
    assert "has a segment Liver; there are hepar. Choose one of these with --segment" in capsys.readouterr().err
    assert evaluation.main([*arguments, "--segment", "Spleen=hepar"]) == 1
    assert "no label Spleen; it has Liver" in capsys.readouterr().err
    assert evaluation.main([*arguments, "--segment", "Liver=hepar+tumour"]) == 1
    assert "No case has a segment tumour; there are hepar." in capsys.readouterr().err
    figures = whole_pairs.measure(bundle, tmp_path / "cases", "accurate", "cpu", ["Liver=hepar"])
    assert figures["labels"]["Liver"]["patients"]["s1"]["dice"] > 0.98


def test_a_case_in_which_no_label_of_the_model_is_marked_costs_no_run(bundle, tmp_path, monkeypatch):
    spleen = Segment(1, "Spleen", TERM, (1, 2, 3), {})
    write_case(tmp_path / "cases", "Ann", cube(3, 10, 10), cube(3, 10, 10))
    write_case(tmp_path / "cases", "Ben", cube(3, 10, 10), cube(3, 10, 10), [spleen])
    runs, predict = [], SliceEngine.predict
    monkeypatch.setattr(SliceEngine, "predict", lambda *given: runs.append(given) or predict(*given))
    figures = whole_pairs.measure(bundle, tmp_path / "cases", "accurate", "cpu")
    assert set(figures["labels"]["Liver"]["patients"]) == {"Ann"}
    assert len(runs) == 1


def test_a_case_that_cannot_be_measured_is_refused_by_name(bundle, tmp_path, capsys):
    write_case(tmp_path / "cases", "Ann", cube(3, 10, 10), cube(3, 10, 10))
    (tmp_path / "cases" / "Ann.seg.nrrd").rename(tmp_path / "cases" / "Zoe.seg.nrrd")
    write_case(tmp_path / "cases", "Ben", cube(3, 10, 10), cube(3, 10, 10))
    assert evaluation.main([str(bundle.folder), "--pairs", str(tmp_path / "cases")]) == 1
    lines = capsys.readouterr().err
    assert "Zoe.seg.nrrd" in lines and "Ann.nrrd" in lines
    assert evaluation.main([str(bundle.folder), "--pairs", str(tmp_path / "none")]) == 1
    assert "none is not a folder" in capsys.readouterr().err
