"""A user's own organ, following docs/own-models.md: drawn in Slicer, prepared, trained, exported, and segmented in the scene.

The spleen is the liver of two real CTs, named Spleen. The training starts from the liver's weights, so that a few steps suffice.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml

import evaluate
import export
import pairs
import train
from Testing.support.mrml_scene import (
    GRIDS,
    LIVER,
    NODULE,
    a_ct,
    a_labelmap,
    add_volume,
    segment_in_world,
    segments_of,
    slicer,
    voxels_in_world,
)
from UNetPlusPlusSegmentLib import api, files
from UNetPlusPlusSegmentLib.core.segment import Segment
from UNetPlusPlusSegmentLib.core.volume import Volume, bounding_box, crop
from UNetPlusPlusSegmentLib.network.bundle import read_bundle
from UNetPlusPlusSegmentLib.scene import mrml, showing

TERM = (
    "Segmentation category and type - 3D Slicer General Anatomy list~SCT^123037004^Anatomical Structure~SCT^78961009^Spleen"
    "~^^~Anatomic codes - DICOM master list~^^~^^"
)
SPLEEN = Segment(1, "Spleen", TERM, (157, 108, 162), {})
CASES = {
    "Ann": ("abdomen_dicom", "abdomen_dicom_liver.nii.gz"),
    "Ben": ("abdomen_3mm_ct.nii.gz", "abdomen_3mm_liver.nii.gz"),
}
MARGIN_MM = 25.0
MODELS = Path(files.__file__).parents[2] / "Resources" / "Models"


def case_of(shared_data, image: str, mask: str) -> tuple[Volume, np.ndarray]:
    """A CT cropped to what is marked and some way round it, and the mask on its voxels."""
    volume, _ = files.read_volume(shared_data(f"volumes/{image}"))
    segments = files.segments_in(shared_data(f"volumes/{mask}"))
    truth = np.logical_or.reduce([*files.masks_of(segments, volume)])
    margins = np.ceil(MARGIN_MM / volume.spacing_mm[::-1]).astype(int)
    ends = zip(bounding_box(truth), margins.tolist(), strict=True)
    box = tuple(slice(max(0, along.start - margin), along.stop + margin) for along, margin in ends)
    return crop(volume, box), truth[box]


def save(node, path, kind: str) -> None:
    storage = slicer.mrmlScene.AddNewNodeByClass(kind)
    storage.SetFileName(str(path))
    assert storage.WriteData(node)


def test_an_organ_drawn_in_slicer_is_learned_and_found_at_the_same_place_in_the_scene(
    scene, shared_data, tmp_path, capsys
):
    drawn, nodes = {}, {}
    (tmp_path / "cases").mkdir()
    for name, of_case in CASES.items():
        volume, truth = drawn[name] = case_of(shared_data, *of_case)
        nodes[name] = add_volume(np.array(volume.array, np.int16), volume.ijk_to_ras, name)
        segmentation = showing.show_segmentation(truth.astype(np.uint8), [SPLEEN], nodes[name])
        save(nodes[name], tmp_path / "cases" / f"{name}.nrrd", "vtkMRMLNRRDStorageNode")
        save(segmentation, tmp_path / "cases" / f"{name}.seg.nrrd", "vtkMRMLSegmentationStorageNode")

    data = tmp_path / "spleen"
    said = ["--source", "Two CTs", "--licence", "CC BY 4.0", "--citation", "We, 2025."]
    split = tmp_path / "split.csv"
    split.write_text("patient,split\nAnn,train\nBen,val\n")
    arguments = ["-o", str(data), "--segment", "Spleen", "--window", "-40", "160", "--pixel", "2", "--every", "4"]
    assert pairs.main([str(tmp_path / "cases"), *arguments, "--split", str(split), *said]) == 0
    assert yaml.safe_load((data / "target.yaml").read_text())["labels"][0]["terminology"] == TERM

    config = tmp_path / "config.yaml"
    config.write_text(
        "name: spleen\npatch: [96, 96]\nbatch_size: 1\nsteps: 2\nsteps_per_epoch: 2\nwarmup_steps: 1\nlearning_rate: 1e-6\n"
        "validation_stride: 6\nthreads: 1\n"
    )
    start = next(iter(sorted(MODELS.glob("liver-ct-v*"))))
    settings = [f"target={data / 'target.yaml'}", f"data={data}", f"runs={tmp_path / 'runs'}", f"init_from={start}"]
    filters = read_bundle(start).architecture.arguments["filters"]
    assert train.main(["--config", str(config), *settings, f"filters={filters}"]) == 0
    bundle = tmp_path / "models" / "spleen-ct-v1.0.0"
    bundle.parent.mkdir()
    assert export.main([str(tmp_path / "runs/spleen/last.ckpt"), str(bundle), "--data", str(data)]) == 0
    card = read_bundle(bundle)
    assert (card.target, card.labels[0].name, card.training_data[0].name) == ("spleen", "Spleen", "Two CTs (1 patient)")
    assert card.training_data[1:] == read_bundle(start).training_data
    assert card.licence == f"CC BY 4.0; {read_bundle(start).licence}"
    capsys.readouterr()

    volume, truth = drawn["Ben"]
    result = api.segment(volume, "spleen", model=bundle, device="cpu", speed="fast")
    shown = showing.show_segmentation(result.labelmap, result.segments, nodes["Ben"])
    ((segmentID, segment),) = segments_of(shown).items()
    assert (segment.GetName(), segment.GetTerminology()) == ("Spleen", TERM)
    found = mrml.labelmap_of(shown, segmentID, nodes["Ben"])
    assert 2 * np.count_nonzero(found & truth) / (np.count_nonzero(found) + np.count_nonzero(truth)) > 0.85
    in_patient = voxels_in_world(nodes["Ben"], volume.ijk_to_ras, result.labelmap > 0)
    np.testing.assert_allclose(segment_in_world(shown, segmentID), in_patient, atol=1e-6)
    assert evaluate.main([str(bundle), "--pairs", str(tmp_path / "cases"), "--speed", "fast"]) == 0
    assert '"Ben"' in capsys.readouterr().out


def test_the_slices_of_a_segmentation_that_slicer_saved_hold_its_voxels(scene, tmp_path):
    """Slicer cuts what it saves to what it needs, and keeps segments that overlap in layers."""
    for name, grid in GRIDS.items():
        node = add_volume(a_ct(), grid)
        segmentation = showing.show_segmentation(a_labelmap(), [LIVER, NODULE], node)
        path = tmp_path / "a.seg.nrrd"
        for cropped in (False, True):
            storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
            storage.SetFileName(str(path))
            storage.SetCropToMinimumExtent(cropped)
            assert storage.WriteData(segmentation)
            masks = files.masks_of(files.segments_in(path), Volume(a_ct(), grid))
            for mask, value in zip(masks, (LIVER.value, NODULE.value), strict=True):
                np.testing.assert_array_equal(mask, a_labelmap() == value, err_msg=f"{name}, cropped: {cropped}")
