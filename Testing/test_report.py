"""The report of a cohort as a file: its order, its texts, its pictures, and folders that cannot have one."""

from __future__ import annotations

import base64
import csv
import json
import re

import pytest

from Testing.support.cohort_folder import SCRIPT, case, make_cohort
from UNetPlusPlusSegmentLib.cli.main import main
from UNetPlusPlusSegmentLib.jobs.manifest import CohortError, alone_in, append
from UNetPlusPlusSegmentLib.jobs.report import make_report
from UNetPlusPlusSegmentLib.jobs.review import add_to_review


def names_in(page: str) -> list[str]:
    return re.findall(r'data-case="([^"]*)"', page)


def test_failed_cases_come_first_and_then_the_most_doubtful(tmp_path):
    page = make_report(make_cohort(tmp_path / "out", 12)).read_text(encoding="utf-8")
    names = names_in(page)
    assert names[:2] == ["case0009", "case0011"]
    assert names[-1] == "case0000"
    assert "The file case0009 &lt;b&gt;is&lt;/b&gt; damaged." in page


def test_an_organ_that_was_not_found_comes_before_what_is_doubtful(tmp_path):
    lost = {**case(0), "case": "lost", "measurements": {"Liver": {"volume_ml": 0.0, "mean_hu": None}}}
    folder = make_cohort(tmp_path / "out", 4, lambda number: lost if number == 0 else case(number))
    assert names_in(make_report(folder).read_text(encoding="utf-8"))[0] == "lost"


def test_nodules_say_how_likely_they_are_and_the_least_likely_ones_come_first(tmp_path):
    def line(number):
        found = {f"Nodule {n}": {"volume_ml": 0.5, "probability": p} for n, p in enumerate(chances[number], start=1)}
        return {**case(0), "case": f"case{number}", "notes": [], "measurements": found}

    chances = [(0.987654, 0.9), (0.95, 0.31), (), (0.6,), (None,)]
    page = make_report(make_cohort(tmp_path / "out", len(chances), line)).read_text(encoding="utf-8")
    assert names_in(page) == ["case1", "case3", "case0", "case2", "case4"]
    assert "Probability" in page and "<td>0.99</td>" in page and "<td>0.31</td>" in page


def test_a_name_is_text_wherever_it_stands(tmp_path):
    folder = make_cohort(tmp_path / "out", 5)
    add_to_review(folder, SCRIPT, "flagged", "</script><script>alert(2)</script>", "<b>")
    page = make_report(folder).read_text(encoding="utf-8")
    assert SCRIPT not in page and "alert(2)</script>" not in page
    assert page.count("<script") == 3


def test_a_manifest_from_elsewhere_brings_no_file_outside_its_folder_into_the_page(tmp_path):
    folder = make_cohort(tmp_path / "out", 1)
    (tmp_path / "private.jpg").write_bytes(b"private")
    with (folder / "manifest.jsonl").open("a") as stream:
        stream.write(json.dumps({**case(2), "case": "../../private"}) + "\n" + "[" * 100_000 + "\n")
    page = make_report(folder).read_text(encoding="utf-8")
    assert page.count("<article") == 1
    assert base64.b64encode(b"private").decode() not in page


def test_figures_are_rounded_and_have_units(tmp_path):
    page = make_report(make_cohort(tmp_path / "out", 1)).read_text(encoding="utf-8")
    text = " ".join(re.sub(r"<[^>]+>", " ", page.partition("<main>")[2]).split())
    assert (
        "Volume ml Expected Dice Mean HU SD HU Extent R mm Extent A mm Extent S mm Liver 1500 0.99 (0.94 to 1)" in text
    )
    assert "S -80 mm, most doubtful" in text
    assert "Seconds: 48.1" in text


def test_the_page_counts_what_failed_and_the_table_says_how_each_case_was_run(tmp_path):
    folder = make_cohort(tmp_path / "out", 12, lambda number: {**case(number), "version": "0.1.0"})
    assert "12 cases, 1 failed." in make_report(folder).read_text(encoding="utf-8")
    with (folder / "measurements.csv").open(encoding="utf-8", newline="") as stream:
        rows = {row["case"]: row for row in csv.DictReader(stream)}
    told = [rows["case0002"][key] for key in ("status", "model", "speed", "threshold", "version", "input")]
    assert told == ["done", "liver-ct-v1.0.0", "balanced", "0.5", "0.1.0", "/data/case0002.nii.gz"]
    assert (rows["case0009"]["status"], rows["case0009"]["volume_ml"]) == ("failed", "")
    assert rows["case0009"]["reason"] == "The file case0009 <b>is</b> damaged."


def test_a_histogram_adds_up_the_nodules_of_a_case_and_names_outliers_by_tukey_s_rule(tmp_path):
    def line(number):
        found = {"Nodule 1": {"volume_ml": volumes[number] - 1.0}, "Nodule 2": {"volume_ml": 1.0}}
        return {**case(0), "case": f"case{number:02}", "notes": [], "measurements": found}

    volumes = [10.0, 10.9, 11.0, 11.0, 12.0, 12.0, 13.0, 13.0, 14.0, 20.0, 26.0]  # quartiles 11 and 14, so up to 18.5
    page = make_report(make_cohort(tmp_path / "out", len(volumes), line)).read_text(encoding="utf-8")
    assert re.findall(r"<figcaption>(.*), volume in ml", page) == ["Nodule"]
    counts = re.findall(r'title="(\S+) to (\S+) ml: (\d+)"', page)
    assert counts[:5] == [("10", "11", "2"), ("11", "12", "2"), ("12", "13", "2"), ("13", "14", "2"), ("14", "15", "1")]
    assert counts[-1] == ("25", "26", "1") and len(counts) == 16
    assert re.findall(r'class="outlier" href="#case-\d+">(.*?)</a>', page) == ["case10 (26 ml)", "case09 (20 ml)"]


@pytest.mark.parametrize(("count", "inside"), [(200, True), (201, False)])
def test_pictures_are_inside_up_to_200_cases_and_beside_above(tmp_path, count, inside):
    page = make_report(make_cohort(tmp_path / "out", count)).read_text(encoding="utf-8")
    sources = re.findall(r'<img src="([^"]{16})', page)
    assert len(sources) == count - count // 10
    assert all(source.startswith("data:image/jpeg") == inside for source in sources)


def test_a_case_that_was_removed_since_says_so_and_one_without_findings_too(tmp_path):
    nothing = {**case(2), "measurements": {}, "notes": ["No nodule was found."]}
    folder = make_cohort(tmp_path / "out", 3, lambda number: nothing if number == 2 else case(number))
    (folder / "case0000.seg.nrrd").unlink()
    page = make_report(folder).read_text(encoding="utf-8")
    assert page.count("The segmentation is no longer in this folder.") == 1
    assert "Nothing was found." in page and "No nodule was found." in page


def test_a_correction_is_shown_with_its_case_as_long_as_its_file_is_there(tmp_path):
    folder = make_cohort(tmp_path / "out", 2)
    again = {**case(0), "case": "case0000.corrected", "corrects": "case0000", "status": "corrected"}
    append(folder, again)
    for is_there in (True, False, True):
        path = folder / "case0000.corrected.seg.nrrd"
        path.touch() if is_there else path.unlink()
        page = make_report(folder).read_text(encoding="utf-8")
        assert len(names_in(page)) == 2
        assert ("Liver (corrected)" in page) == is_there
        assert ("case0000.corrected" in (folder / "measurements.csv").read_text()) == is_there


def test_files_that_were_skipped_are_no_cases_but_named(tmp_path):
    folder = make_cohort(tmp_path / "out", 2)
    append(folder, {"case": "x.zip", "input": "/x.zip", "status": "skipped", "reason": "It is an archive."})
    page = make_report(folder).read_text(encoding="utf-8")
    assert len(names_in(page)) == 2
    assert "Skipped files: 1" in page and "x.zip: It is an archive." in page


def test_a_cohort_that_is_running_says_so(tmp_path):
    folder = make_cohort(tmp_path / "out", 2)
    with alone_in(folder):
        assert "was still running" in make_report(folder).read_text(encoding="utf-8")
    assert "still running" not in make_report(folder).read_text(encoding="utf-8")


def test_the_shell_makes_a_report_and_takes_reviews_in(tmp_path, capsys):
    folder, other = make_cohort(tmp_path / "out", 2), tmp_path / "other.csv"
    other.write_text("case,verdict,comment,reviewer,time\ncase0000,flagged,Look,B,2026-01-01T00:00:00Z\n")
    assert main(["report", str(folder), "--review", str(other)]) == 0
    assert capsys.readouterr().out == f"Report: {folder / 'report.html'}\n"
    marks = re.search(r'id="marks">(.*?)</script>', (folder / "report.html").read_text(encoding="utf-8")).group(1)
    assert json.loads(marks) == [["case0000", "flagged", "Look", "B", "2026-01-01T00:00:00Z"]]


@pytest.mark.parametrize("kind", ["another program's", "empty", "nowhere", "a file"])
def test_a_folder_without_a_cohort_is_refused_and_left_alone(tmp_path, capsys, kind):
    folder = tmp_path / "out"
    if kind == "a file":
        folder.write_text("")
    elif kind != "nowhere":
        folder.mkdir()
    if kind == "another program's":
        (folder / "liver.nii.gz").write_text("")
    before = sorted(tmp_path.rglob("*"))
    assert main(["report", str(folder)]) == 1
    assert "there is no manifest.jsonl" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_cohort_with_0_cases_has_no_report(tmp_path):
    (tmp_path / "manifest.jsonl").write_text('{"case": "a", "sta')
    with pytest.raises(CohortError, match="contains no case yet"):
        make_report(tmp_path)


def test_a_read_only_folder_is_refused_with_a_sentence(tmp_path, ordinary_user, capsys):
    folder = make_cohort(tmp_path / "out", 2)
    folder.chmod(0o555)
    assert main(["report", str(folder)]) == 1
    said = capsys.readouterr().err
    assert "could not be written: Permission denied" in said and said.count("\n") == 1
    folder.chmod(0o755)
