"""The review of a cohort: the latest line of a case counts, and no line is ever lost."""

from __future__ import annotations

import csv
import os

import pytest

from UNetPlusPlusSegmentLib.jobs.review import (
    COLUMNS,
    Mark,
    ReviewError,
    add_to_review,
    change_mark,
    mark_of,
    merge_review,
    read_lines,
    read_review,
)


def test_each_mark_is_a_line_and_the_latest_one_counts(tmp_path):
    assert read_review(tmp_path) == {}
    add_to_review(tmp_path, "pat01", "flagged", 'Too small, "by far"\nlook again', "Müller")
    add_to_review(tmp_path, "pat02", "accepted")
    add_to_review(tmp_path, "pat01", "accepted", reviewer="Meier")
    review = read_review(tmp_path)
    assert {case: line["verdict"] for case, line in review.items()} == {"pat01": "accepted", "pat02": "accepted"}
    with (tmp_path / "review.csv").open(encoding="utf-8", newline="") as stream:
        rows = [*csv.DictReader(stream)]
    assert list(rows[0]) == list(COLUMNS)
    assert [row["case"] for row in rows] == ["pat01", "pat02", "pat01"]
    assert rows[0]["comment"] == 'Too small, "by far"\nlook again'


@pytest.mark.parametrize(
    ("given", "now"),
    [
        (Mark("", "small"), Mark("flagged", "left lobe missed")),
        (Mark("accepted", "small"), Mark("accepted", "left lobe missed")),
        (Mark("", ""), Mark("flagged", "")),
        (Mark("flagged", "large"), Mark("flagged", "large")),
    ],
    ids=["nothing", "the verdict", "the comment", "both"],
)
def test_what_a_reviewer_leaves_as_it_was_shown_stays_as_a_colleague_has_marked_it_since(tmp_path, given, now):
    seen = Mark("", "small")
    add_to_review(tmp_path, "pat01", "flagged", "left lobe missed", "colleague")
    change_mark(tmp_path, "pat01", seen, given, "reviewer")
    assert mark_of(read_review(tmp_path), "pat01") == now
    assert len(read_lines(tmp_path / "review.csv")) == 1 + (given != seen)


def test_an_unknown_verdict_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(ReviewError, match="accepted, flagged or empty; got 'good'"):
        add_to_review(tmp_path, "pat01", "good")
    assert not [*tmp_path.iterdir()]


def test_a_line_that_was_torn_is_left_out_and_the_next_one_stands_alone(tmp_path):
    add_to_review(tmp_path, "pat01", "accepted")
    with (tmp_path / "review.csv").open("a") as stream:
        stream.write("pat02,flag")  # the computer went down here
    add_to_review(tmp_path, "pat03", "flagged")
    assert set(read_review(tmp_path)) == {"pat01", "pat03"}


def test_reviews_of_several_people_are_merged_once_and_by_time_not_by_order(tmp_path):
    add_to_review(tmp_path, "pat01", "accepted")
    other = tmp_path / "other.csv"
    other.write_text(
        "case,verdict,comment,reviewer,time\npat01,flagged,,B,2001-01-01T00:00:00Z\npat02,flagged,,B,2001-01-01T01:00:00+01:00\n"
    )
    for _ in range(2):
        merge_review(tmp_path, other, ["pat01", "pat02"])
    assert len(read_lines(tmp_path / "review.csv")) == 3
    assert {case: line["verdict"] for case, line in read_review(tmp_path).items()} == {
        "pat01": "accepted", "pat02": "flagged"
    }  # fmt: skip


def test_a_review_that_a_spreadsheet_saved_is_read_and_goes_on_in_its_way(tmp_path):
    (tmp_path / "review.csv").write_bytes(
        "\ufeffcase;verdict;comment;reviewer;time\r\npat01;flagged;a, b;C;2026-01-01T00:00:00Z\r\n".encode()
    )
    add_to_review(tmp_path, "pat02", "accepted", "c; d")
    review = read_review(tmp_path)
    assert (review["pat01"]["comment"], review["pat02"]["comment"]) == ("a, b", "c; d")


def test_a_case_keeps_its_review_whatever_spaces_are_in_its_name(tmp_path):
    for case in ("patient 7 ", " patient 7"):  # from "patient 7 .nrrd", for instance
        add_to_review(tmp_path, case, "accepted")
        assert read_review(tmp_path)[case]["verdict"] == "accepted"


def test_a_comment_that_a_spreadsheet_would_run_is_a_text_in_the_file_and_comes_back_as_it_was(tmp_path):
    add_to_review(tmp_path, "=x", "flagged", "-5 ml, too small", "@me")
    assert (tmp_path / "review.csv").read_text().splitlines()[1].startswith("'=x,flagged,\"'-5 ml, too small\",'@me,")
    line = read_review(tmp_path)["=x"]
    assert (line["comment"], line["reviewer"]) == ("-5 ml, too small", "@me")
    merge_review(tmp_path, tmp_path / "review.csv", ["=x"])
    assert len(read_lines(tmp_path / "review.csv")) == 1


def test_a_torn_line_in_another_review_is_left_out(tmp_path):
    lines = "pat01,accepted,,B,2001-01-01T00:00:00Z", "pat02,fl", "pat02,flagged,,B,2001-01-02T00:00:00Z", "pat03,,,,"
    (tmp_path / "other.csv").write_text("\n".join(["case,verdict,comment,reviewer,time", *lines]))
    merge_review(tmp_path, tmp_path / "other.csv", ["pat01", "pat02", "pat03"])
    assert {case: line["verdict"] for case, line in read_review(tmp_path).items()} == {
        "pat01": "accepted",
        "pat02": "flagged",
    }


def test_another_table_is_no_review(tmp_path):
    for text in ("name,age\nx,3\n", "case,verdict\nx,flagged\n"):
        (tmp_path / "review.csv").write_text(text)
        with pytest.raises(ReviewError, match=r"is not a review: its first line must name the columns case, verdict"):
            read_review(tmp_path)
    with pytest.raises(ReviewError, match="There is no file"):
        merge_review(tmp_path, tmp_path / "nowhere.csv", [])


@pytest.mark.usefixtures("ordinary_user")
def test_a_review_that_may_not_be_written_is_refused(tmp_path):
    add_to_review(tmp_path, "pat01", "accepted")
    os.chmod(tmp_path / "review.csv", 0o444)  # noqa: PTH101
    with pytest.raises(ReviewError, match=r"cannot be written \(Permission denied\)"):
        add_to_review(tmp_path, "pat01", "flagged")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (
            "pat01,good,,B,2001-01-01T00:00:00Z",
            "has the verdict 'good' on pat01: it must be accepted, flagged or empty",
        ),
        ("someone,flagged,,B,2001-01-01T00:00:00Z", "is about none of the cases in"),
        ("pat01,flagged,,B,", "does not say when pat01 was reviewed"),
    ],
)
def test_a_review_with_another_verdict_without_a_time_or_of_another_cohort_is_refused_and_nothing_is_added(
    tmp_path, line, reason
):
    other = tmp_path / "other.csv"
    other.write_text(f"case,verdict,comment,reviewer,time\n{line}\n")
    with pytest.raises(ReviewError, match=reason):
        merge_review(tmp_path, other, ["pat01", "pat02"])
    assert not (tmp_path / "review.csv").exists()
