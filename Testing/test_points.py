"""Points from files: Slicer's markups in both coordinate systems, and tables."""

from __future__ import annotations

import json

import pytest

from UNetPlusPlusSegmentLib.files.images import FileError
from UNetPlusPlusSegmentLib.files.points import read_points, read_points_table

HERE = (-56.5, -86.0, -116.0)
THERE = (40.0, 10.0, -150.25)


def markups(system) -> str:
    sign = -1 if system in ("LPS", 1) else 1
    points = [{"position": [sign * r, sign * a, s], "positionStatus": "defined"} for r, a, s in (HERE, THERE)]
    points.append({"position": [0, 0, 0], "positionStatus": "undefined"})
    return json.dumps({"markups": [{"type": "Fiducial", "coordinateSystem": system, "controlPoints": points}]})


FILES = {
    "lps.mrk.json": markups("LPS"),
    "ras.mrk.json": markups("RAS"),
    "figure.mrk.json": markups(1),
    "ras.fcsv": "# Markups fiducial file version = 4.10\n# CoordinateSystem = 0\n# columns = id,x,y,z,ow,ox,oy,oz\n"
    "1,-56.5,-86,-116,0,0,0,1\n2,40,10,-150.25,0,0,0,1\n",
    "lps.fcsv": "# CoordinateSystem = LPS\n1,56.5,86,-116\n2,-40,-10,-150.25\n",
    "unplaced.fcsv": "# CoordinateSystem = LPS\n# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"
    '1,56.5,86,-116,0,0,0,1,1,1,0,"F, 1",,,2,0\n3,9,9,9,0,0,0,1,1,1,0,F-3,"see, there",,0,0\n'
    "2,-40,-10,-150.25,0,0,0,1,1,1,0,F-2,,,2,0\n",
    "r_a_s.csv": "name,R,A,S\none,-56.5,-86,-116\ntwo,40,10,-150.25\n",
    "semicolons.csv": "r;a;s\n-56.5;-86;-116\n40;10;-150.25\n",
    "unplaced.csv": '"label","l","p","s","defined","selected"\n"F-1",56.5,86,-116,1,1\n"F-3",9,9,9,0,1\n"F-2",-40,-10,-150.25,1,1\n',
    "l_p_s.csv": "\ufeffl,p,s\n56.5,86,-116\n-40,-10,-150.25\n",
    "table.csv": "segment,centroid_r_mm,centroid_a_mm,centroid_s_mm\nNodule 1,-56.5,-86,-116\n,,,\nNodule 2,40,10,-150.25\n",
}


@pytest.mark.parametrize("name", FILES)
def test_points_are_read_in_ras_whatever_they_are_written_in(tmp_path, name):
    (tmp_path / name).write_text(FILES[name], encoding="utf-8")
    assert read_points(tmp_path / name) == [HERE, THERE]


def test_the_points_of_several_cases_stand_in_one_table(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("case,r,a,s\nA,1,2,3\n'-B,4,5,6\nA,7,8,9\n", encoding="utf-8")
    assert read_points_table(path) == {"A": ((1, 2, 3), (7, 8, 9)), "-B": ((4, 5, 6),)}
    path.write_text("r,a,s\n1,2,3\n", encoding="utf-8")
    with pytest.raises(FileError, match="which case"):
        read_points_table(path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.mrk.json", "{"),
        ("a.mrk.json", '{"markups": [{"coordinateSystem": "XYZ", "controlPoints": [{"position": [1, 2, 3]}]}]}'),
        ("a.mrk.json", '{"markups": [{"controlPoints": [{"position": [1, 2]}]}]}'),
        ("a.fcsv", "1,2,x,4\n"),
        ("a.csv", "x,y,z\n1,2,3\n"),
        ("a.csv", "r,a,s\n1,2,nan\n"),
        ("a.csv", "r,a,s\n"),
        ("a.csv", ""),
    ],
)
def test_what_holds_no_points_is_refused_in_one_sentence(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(FileError, match=name):
        read_points(tmp_path / name)
    with pytest.raises(FileError, match="nowhere"):
        read_points(tmp_path / "nowhere.csv")
