"""The table of the browser app: columns that say something, and rows in the order that the visitor wants."""

from UNetPlusPlusSegmentLib.app.table import Table

SEGMENTS = {
    "a": ("Nodule 1", {"volume_ml": 1.24, "mean_hu": -20.0, "kind": "solid", "probability": 0.8}),
    "b": ("Drawn", {}),
    "c": ("Nodule 2", {"volume_ml": 0.3, "mean_hu": 60.0, "kind": "solid", "probability": 0.95}),
}


def test_columns_without_text_are_left_out_and_rows_stand_as_in_the_segmentation():
    ids, titles, rows = Table().content(SEGMENTS)
    assert (ids, titles) == (["a", "b", "c"], ["Segment", "ml", "HU", "Kind", "Probability"])
    assert rows[:2] == [["Nodule 1", "1.24", "-20", "solid", "0.8"], ["Drawn", "", "", "", ""]]
    assert Table().content({})[1] == ["Segment", "ml"]


def test_a_title_sorts_the_rows_a_second_click_reverses_them_and_unknown_values_come_last():
    table = Table()
    for title, order in (
        ("Probability", "cab"), ("Probability", "acb"), ("ml", "acb"), ("Kind", "acb"), ("Segment", "abc"), ("Segment", "cba"),
    ):  # fmt: skip
        table.sort_by(title)
        assert "".join(table.content(SEGMENTS)[0]) == order
