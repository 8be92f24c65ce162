"""Points and boxes: where in a volume a run looks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from Testing.support.mrml_scene import (
    GRIDS,
    PLACES,
    TURN,
    add_linear_transform,
    add_roi,
    add_volume,
    angles,
    at,
    nothing_changes,
    rotation,
    several_in_one_scene,
    shifts,
    slicer,
    to_world,
    turned_by,
)
from Testing.support.worker_logic import GRID, a_run, a_scan, expected, wait
from UNetPlusPlusSegmentLib import files
from UNetPlusPlusSegmentLib.cli.main import main
from UNetPlusPlusSegmentLib.core.note import Note
from UNetPlusPlusSegmentLib.core.result import Result
from UNetPlusPlusSegmentLib.core.segment import Segment
from UNetPlusPlusSegmentLib.core.volume import Volume, VolumeError
from UNetPlusPlusSegmentLib.scene import markups, mrml, placement


def volume_of(volumeNode) -> Volume:
    return Volume(mrml.volume_from_node(volumeNode).array, placement.world_ijk_to_ras(volumeNode))


# Points


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("grid", ["as DICOM lies in RAS", "oblique", "sagittal"])
def test_a_point_on_a_voxel_is_found_there_and_shown_where_it_was_placed(scene, place, grid):
    volumeNode = add_volume(np.zeros((5, 7, 9), np.int16), GRIDS[grid], transform=PLACES[place]())
    points = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")
    world = [to_world(volumeNode, ijk) for ijk in ([2, 3, 1], [8, 0, 4])]
    for each in world:
        points.AddControlPointWorld(*each)
    volume = volume_of(volumeNode)
    found = markups.points_on_volume(points, volumeNode, volume)
    ijk = [np.linalg.solve(volume.ijk_to_ras, [*each, 1])[:3] for each in found]
    np.testing.assert_allclose(ijk, [[2, 3, 1], [8, 0, 4]], atol=0.02)  # a B-spline is inverted step by step
    assert markups.points_on_volume(world, volumeNode, volume) == found
    np.testing.assert_allclose([markups.in_world(each, volumeNode, volume) for each in found], world, atol=0.05)


def test_points_under_a_transform_of_their_own_lie_where_it_puts_them(scene):
    volumeNode = add_volume(np.zeros((5, 7, 9), np.int16), GRIDS["oblique"])
    points = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")
    points.SetAndObserveTransformNodeID(add_linear_transform(TURN).GetID())
    world = [to_world(volumeNode, ijk) for ijk in ([2, 3, 1], [8, 0, 4])]
    for each in world:
        points.AddControlPointWorld(*each)
    np.testing.assert_allclose(markups.points_on_volume(points, volumeNode, volume_of(volumeNode)), world, atol=1e-6)


def test_a_point_outside_the_volume_and_an_empty_list_are_refused(scene):
    volumeNode = add_volume(np.zeros((5, 7, 9), np.int16), np.eye(4), "Chest")
    with pytest.raises(VolumeError, match=r"Point 2 \(1, 2, 30 mm\) is outside Chest"):
        markups.points_on_volume([[1, 2, 3], [1, 2, 30]], volumeNode, volume_of(volumeNode))
    empty = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")
    with pytest.raises(VolumeError, match="No point was placed"):
        markups.points_on_volume(empty, volumeNode, volume_of(volumeNode))


@pytest.mark.parametrize("place", ["affine transform", "two linear transforms", "grid transform"])
def test_a_transform_moves_the_points_that_are_measured_or_named_and_not_an_extent(scene, place):
    volumeNode = add_volume(np.zeros((5, 7, 9), np.int16), GRIDS["oblique"], transform=PLACES[place]())
    volume = volume_of(volumeNode)
    first, last = (tuple((volume.ijk_to_ras @ [*ijk, 1])[:3]) for ijk in ([2, 3, 1], [8, 0, 4]))
    measured = {"extent_ras": [30.0, 40.0, 50.0], "centroid_ras": first, "long_axis_ras": (first, last)}
    slices = {"doubtful_slices": [{"k": k, "s_mm": s} for k, s in ((1, first[2]), (4, last[2]))]}
    segment = Segment(1, "", "", (0, 0, 0), {**measured, **slices, "doubtful_slices_ras": [[*first], [*last]]})
    notes = (Note("there", "There, at {place}.", (last,)), Note("here", "Here, at S {s} mm.", (first, last)))
    result = Result(volume.array, (segment,), notes, 0.5, "m-v1.0.0", "cpu", 5, 5, 1.0)
    moved = markups.result_in_world(result, volumeNode, volume)
    found = moved.segments[0].measurements
    assert found["extent_ras"] == [30.0, 40.0, 50.0]
    ends = [to_world(volumeNode, ijk) for ijk in ([2, 3, 1], [8, 0, 4])]
    np.testing.assert_allclose(found["centroid_ras"], ends[0], atol=0.05)
    np.testing.assert_allclose(found["long_axis_ras"], ends, atol=0.05)
    np.testing.assert_allclose(found["doubtful_slices_ras"], ends, atol=0.05)
    told = [(1, found["doubtful_slices_ras"][0][2]), (4, found["doubtful_slices_ras"][1][2])]
    assert [(each["k"], each["s_mm"]) for each in found["doubtful_slices"]] == told
    (_, _, first_s), (r, a, s) = ends
    assert [*map(str, moved.notes)] == [
        f"There, at ({r:.0f}, {a:.0f}, {s:.0f}).",
        f"Here, at S {first_s:.0f}, {s:.0f} mm.",
    ]


# Boxes


@several_in_one_scene
@given(degrees=angles, shift=shifts)
def test_a_box_is_the_voxels_inside_it_however_both_are_turned(scene, degrees, shift):
    transform = add_linear_transform(turned_by(degrees, shift))
    volumeNode = add_volume(np.zeros((6, 8, 10), np.int16), GRIDS["oblique"], transform=transform)
    roi = add_roi(volumeNode, (2, 1, 3), (7, 4, 3), transform)
    assert markups.box_on_volume(roi, volumeNode) == [[3, 4], [1, 5], [2, 8]]


def test_a_box_that_is_turned_against_the_volume_is_enclosed_and_cut_at_its_border(scene):
    volumeNode = add_volume(np.zeros((20, 20, 20), np.int16), np.eye(4))
    roi = add_roi(volumeNode, (8, 8, 8), (11, 11, 11))
    roi.SetAndObserveTransformNodeID(add_linear_transform(at(rotation(45, 2), (9.5, -3.94, 0))).GetID())
    (k, j, i) = markups.box_on_volume(roi, volumeNode)
    assert (k, j[1] - j[0], i[1] - i[0]) == ([8, 12], 6, 6)  # 4.9 · sin 45° · 2 = 6.9 across
    roi.SetSize(1000, 1000, 1000)
    assert markups.box_on_volume(roi, volumeNode) == [[0, 20]] * 3


def test_of_a_turned_box_only_what_lies_in_it_counts_as_inside(scene):
    volumeNode = add_volume(np.zeros((20, 20, 20), np.int16), GRIDS["oblique"], transform=add_linear_transform(TURN))
    roi = add_roi(volumeNode, (4, 6, 8), (13, 12, 11))
    roi.SetAndObserveTransformNodeID(add_linear_transform(TURN @ rotation(25, 2)).GetID())
    inside = markups.inside_roi(roi, volumeNode)
    (k, j, i) = (slice(*along) for along in markups.box_on_volume(roi, volumeNode))
    toRoi = np.linalg.inv(slicer.util.arrayFromVTKMatrix(roi.GetObjectToWorldMatrix()))
    for ijk in np.ndindex(20, 20, 20):
        place = toRoi @ [*to_world(volumeNode, ijk), 1]
        assert inside[ijk[::-1]] == (np.abs(place[:3]) <= np.array(roi.GetSize()) / 2 + 1e-6).all()
    assert inside[k, j, i].sum() == inside.sum() > 50
    assert not inside[k, j, i].all()


@pytest.mark.parametrize("place", ["no transform", "linear transform", "grid transform", "B-spline transform"])
def test_of_a_box_that_lies_straight_all_is_inside(scene, place):
    transform = PLACES[place]()
    volumeNode = add_volume(np.zeros((6, 8, 10), np.int16), np.diag([2.0, 2.0, 3.0, 1.0]), transform=transform)
    roi = add_roi(
        volumeNode, (2, 1, 3), (7, 4, 4), transform if transform and transform.IsTransformToWorldLinear() else None
    )
    inside, box = markups.inside_roi(roi, volumeNode), markups.box_on_volume(roi, volumeNode)
    assert markups.places_in_roi(roi, volumeNode)["turned"] is None
    expected_box = np.zeros((6, 8, 10), bool)
    expected_box[tuple(slice(*along) for along in box)] = True
    assert (inside == expected_box).all()


def test_a_box_beside_the_volume_is_refused(scene, logic):
    volumeNode = add_volume(a_scan(), GRID, "Abdomen")
    roi = add_roi(volumeNode, (100, 5, 5), (120, 10, 10))
    with nothing_changes(scene), pytest.raises(VolumeError, match="box contains no voxel of Abdomen"):
        logic.process(volumeNode, roi=roi)


def test_a_box_that_is_not_drawn_yet_is_refused(scene, logic):
    volumeNode = add_volume(a_scan(), np.eye(4))  # with a voxel where such a box has its centre
    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "box")
    with nothing_changes(scene), pytest.raises(VolumeError, match="box is not drawn yet: draw it in a slice view"):
        logic.process(volumeNode, roi=roi)


def test_a_run_looks_only_inside_its_box_and_measures_what_is_there(scene, logic, models):
    transform = add_linear_transform(TURN)
    volumeNode = add_volume(a_scan(), GRID, transform=transform)
    roi = add_roi(volumeNode, (20, 4, 8), (44, 20, 12), transform)
    run = a_run(logic, volumeNode, roi=roi, maps=["probability"])
    assert run.error is None
    inside = np.s_[8:13, 4:21, 20:45]
    mask = mrml.labelmap_of(run.segmentationNode, run.segmentIDs[0], volumeNode)
    outside = mask.copy()
    outside[inside] = False
    assert mask.any() and not outside.any()
    matrix = placement.world_ijk_to_ras(volumeNode).copy()
    matrix[:3, 3] += matrix[:3, :3] @ [20, 4, 8]
    np.testing.assert_array_equal(mask[inside], expected(models, a_scan()[inside], matrix) == 1)
    volume_ml = mask.sum() * abs(np.linalg.det(GRID[:3, :3])) / 1000
    assert run.measurements["Liver"]["volume_ml"] == pytest.approx(volume_ml)
    run.set_threshold(0.97)
    wait(logic, lambda: not run.jobs)
    assert run.error is None
    assert 0 < mrml.labelmap_of(run.segmentationNode, run.segmentIDs[0], volumeNode).sum() < mask.sum()


def test_of_a_turned_box_only_what_lies_in_it_gets_into_the_scene_and_the_table(scene, logic):
    volumeNode = add_volume(a_scan(), GRID, transform=add_linear_transform(TURN))
    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "straight in the world")
    roi.SetCenterWorld(to_world(volumeNode, (27, 16, 12)))
    roi.SetSizeWorld([30, 30, 30])
    inside = markups.inside_roi(roi, volumeNode)
    run = a_run(logic, volumeNode, roi=roi, maps=["probability"])
    for _ in range(2):
        assert run.error is None
        mask = mrml.labelmap_of(run.segmentationNode, run.segmentIDs[0], volumeNode)
        assert mask.any() and not mask[~inside].any()
        volume_ml = mask.sum() * abs(np.linalg.det(GRID[:3, :3])) / 1000
        assert run.measurements["Liver"]["volume_ml"] == pytest.approx(volume_ml)
        run.set_threshold(0.97)
        wait(logic, lambda: not run.jobs)
    assert not mrml.volume_from_node(run.mapNodes[0]).array[~inside].any()


def test_a_turned_box_that_lies_between_the_voxels_is_refused(scene):
    volumeNode = add_volume(np.zeros((20, 20, 20), np.int16), np.eye(4), "Abdomen")
    roi = add_roi(volumeNode, (8, 8, 8), (11, 11, 11))
    roi.SetSize(3.0, 0.1, 3.0)
    turn = at(rotation(45, 2), (9.5, -3.7, 0.0))  # its middle plane is half way between two diagonals of voxels
    roi.SetAndObserveTransformNodeID(add_linear_transform(turn).GetID())
    assert markups.box_on_volume(roi, volumeNode)
    with pytest.raises(VolumeError, match="box contains no voxel of Abdomen"):
        markups.places_in_roi(roi, volumeNode)


@pytest.mark.parametrize("grid", [np.diag([-2.0, -2.0, 3.0, 1.0]), GRID], ids=["straight", "oblique"])
def test_a_box_in_the_shell_gives_the_mask_that_the_same_roi_gives_in_the_scene(scene, logic, models, tmp_path, grid):
    volumeNode = add_volume(a_scan(), grid)
    first, last = (np.round((grid @ [*ijk, 1])[:3]) for ijk in ((20, 4, 8), (44, 20, 12)))
    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "straight in the world")
    roi.SetCenterWorld((first + last) / 2)
    roi.SetSizeWorld(np.abs(first - last))
    run = a_run(logic, volumeNode, roi=roi)
    files.write_volume(tmp_path / "scan.nrrd", a_scan(), grid)
    corners = ",".join(f"{x:g}" for x in (*first, *last))
    output = tmp_path / "liver.nii.gz"
    assert main(["liver", str(tmp_path / "scan.nrrd"), "--box", corners, "-o", str(output), "--device", "cpu"]) == 0
    assert run.result.labelmap.any()
    np.testing.assert_array_equal(files.read_volume(output)[0].array, run.result.labelmap)


def test_whether_it_is_a_ct_is_asked_of_the_whole_volume_not_of_the_box(scene, logic):
    scan = a_scan()
    volumeNode = add_volume(scan, GRID)
    inside_the_block = add_roi(volumeNode, (16, 9, 11), (38, 23, 13))
    run = a_run(logic, volumeNode, roi=inside_the_block)
    assert run.error is None and [note.kind for note in run.result.notes] == ["tilted", "cut-by-box"]
    not_ct = add_volume(scan + 1024, GRID)
    run = a_run(logic, not_ct, roi=inside_the_block)
    assert "does not look like CT" in str(run.error)
    run = a_run(logic, not_ct, roi=inside_the_block, force=True)
    assert [note.kind for note in run.result.notes] == ["forced", "tilted", "cut-by-box"]


def test_notes_on_the_whole_volume_are_kept_at_another_threshold(scene, logic):
    scan = a_scan()
    scan[5:25, 5:35, 10:45] = 90  # in the box lies no air: alone it does not look like CT
    volumeNode = add_volume(scan, GRID)
    run = a_run(logic, volumeNode, roi=add_roi(volumeNode, (15, 10, 10), (35, 30, 20)))
    assert run.error is None
    assert not any(note.kind == "forced" for note in run.result.notes)
    run.set_threshold(0.8)
    wait(logic, lambda: not run.jobs)
    assert run.error is None
    assert not any(note.kind == "forced" for note in run.result.notes)


def test_points_and_a_box_exclude_each_other(scene, logic):
    volumeNode = add_volume(a_scan(), GRID)
    with pytest.raises(ValueError, match="cannot be combined"):
        logic.process(volumeNode, target="nodule", points=[[0, 0, 0]], roi=add_roi(volumeNode, (2, 1, 3), (7, 4, 3)))


def test_points_are_for_nodules(scene, logic):
    volumeNode = add_volume(a_scan(), GRID)
    with pytest.raises(ValueError, match="Points can only be used for nodules"):
        logic.process(volumeNode, points=[[0, 0, 0]])
