"""What gets shipped: CMake lists and wheel against the tree, metadata against the Extensions Index's own checks.

The regular expressions, the keys and the names are those of the index's `check_description_files.py` and of its schema
v1.0.1 (Slicer/ExtensionsIndex, Slicer/Slicer): what it would refuse fails here first.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from UNetPlusPlusSegmentLib import __version__
from UNetPlusPlusSegmentLib.cli.parser import parser

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # comes with hatchling, as the standard library has none yet

ROOT = Path(__file__).resolve().parents[1]
NAME = "UNetPlusPlusSegment"
MODULE = ROOT / NAME
HOMEPAGE = f"https://github.com/unetplusplussegment/Slicer{NAME}"
RAW = HOMEPAGE.replace("https://github.com", "https://raw.githubusercontent.com") + "/main/"

CMAKE = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
MODULE_CMAKE = (MODULE / "CMakeLists.txt").read_text(encoding="utf-8")
INDEX_ENTRY = json.loads((ROOT / f"{NAME}.json").read_text(encoding="utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

DOCUMENTS = ROOT / "docs"
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md", "training/README.md")

INDEX_LIMIT = 100 * 2**20  # bytes of work tree and history together


def cmake_list(variable: str) -> list[str]:
    """The items that the module's CMakeLists.txt gives to a variable, with its name filled in."""
    body = re.search(rf"set\(\s*{variable}\s+([^)]*)\)", MODULE_CMAKE).group(1)
    return re.sub(r"#.*", "", body).replace("${MODULE_NAME}", NAME).split()


def files_of_the_module() -> set[str]:
    """Every file below the module's folder that Slicer has to find there, relative to it."""
    paths = (path.relative_to(MODULE) for path in MODULE.rglob("*") if path.is_file())
    ours = (p for p in paths if "__pycache__" not in p.parts and not any(part.startswith(".") for part in p.parts))
    return {p.as_posix() for p in ours} - {"CMakeLists.txt"}


def extension_value(key: str) -> str:
    """The one string that the top CMakeLists.txt gives to `EXTENSION_<key>`, on a line of its own."""
    return re.search(rf'^set\(EXTENSION_{key} "([^"\n]+)"\)', CMAKE, re.MULTILINE).group(1)


def anchors_of(page: Path) -> set[str]:
    """What GitHub calls the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_cmake_lists_every_script_of_the_module_and_no_other():
    scripts = cmake_list("MODULE_PYTHON_SCRIPTS")
    assert len(scripts) == len(set(scripts)), "a script is listed twice"
    assert set(scripts) == {path for path in files_of_the_module() if path.endswith(".py")}


def test_cmake_lists_every_resource_of_the_module_and_no_other():
    resources = cmake_list("MODULE_PYTHON_RESOURCES")
    assert len(resources) == len(set(resources)), "a resource is listed twice"
    assert set(resources) == {path for path in files_of_the_module() if not path.endswith(".py")}


def test_the_installed_extension_holds_both_licences():
    (files,) = re.findall(
        r"^install\(FILES ([^\n]+)\n {2}DESTINATION \S+/Resources/Models$", MODULE_CMAKE, re.MULTILINE
    )
    assert files.split() == ["../LICENSE", "../MODELS_LICENSE.md"]
    assert all((MODULE / path).is_file() for path in files.split())


def test_no_script_lies_beside_the_module_file():
    beside = {path.name for path in MODULE.glob("*.py")} - {f"{NAME}.py"}
    assert not beside, f"Slicer would take them for modules of their own: {beside}"


def test_slicer_s_tests_of_the_module_are_registered_once_its_file_is_there():
    there = (MODULE / f"{NAME}.py").exists()
    assert ("WITH_GENERIC_TESTS" in MODULE_CMAKE) == there
    assert ("slicer_add_python_unittest(SCRIPT ${MODULE_NAME}.py)" in MODULE_CMAKE) == there


def test_the_extension_builds_each_of_its_modules():
    modules = {path.parent.name for path in ROOT.glob("*/CMakeLists.txt")}
    assert set(re.findall(r"add_subdirectory\((\w+)\)", CMAKE)) == modules == {NAME}


def test_the_extension_s_cmake_file_keeps_the_order_of_slicer_s_template():
    """The versions are those of Slicer 5.10. From 3.27 on, CMake would find no Python for the macro that copies the scripts (CMP0148)."""
    statements = [
        "cmake_minimum_required(VERSION 3.20.6...3.22.6 FATAL_ERROR)",
        f"project({NAME})",
        *(f"set(EXTENSION_{key} " for key in ("HOMEPAGE", "CATEGORY", "CONTRIBUTORS", "DESCRIPTION")),
        *(f"set(EXTENSION_{key} " for key in ("ICONURL", "SCREENSHOTURLS", "DEPENDS")),
        "find_package(Slicer REQUIRED)",
        "include(${Slicer_USE_FILE})",
        f"add_subdirectory({NAME})",
        "## NEXT_MODULE",
        "include(${Slicer_EXTENSION_GENERATE_CONFIG})",
        "include(${Slicer_EXTENSION_CPACK})",
    ]
    lines = [line for line in CMAKE.splitlines() if line and not re.match(r"#(?!# NEXT_MODULE)", line)]
    assert len(lines) == len(statements)
    for line, statement in zip(lines, statements, strict=True):
        assert line.startswith(statement)


def test_the_index_reads_the_extension_s_name_out_of_the_cmake_file():
    names = re.findall(r"project\s*\(\s*([^\s\)\n\r]+)", CMAKE, re.IGNORECASE | re.MULTILINE)
    assert names[0] == NAME
    assert not NAME.lower().startswith("slicer")


def test_the_index_reads_the_icon_and_the_screenshots_out_of_the_cmake_file():
    icon = re.findall(r'set\s*\(EXTENSION_ICONURL\s*"([^"]+)"[ ]*\)', CMAKE, re.IGNORECASE | re.MULTILINE)
    shots = re.findall(r'set\s*\(EXTENSION_SCREENSHOTURLS\s*"([^"]+)"\)', CMAKE, re.IGNORECASE | re.MULTILINE)
    assert len(icon) == len(shots) == 1
    for url in (*icon, *shots[0].split()):
        assert url.startswith(RAW), "the raw file is needed, not GitHub's page about it"
        assert url.endswith(".png")


def test_the_icon_and_the_screenshots_lie_where_their_addresses_say():
    for url in (extension_value("ICONURL"), *extension_value("SCREENSHOTURLS").split()):
        assert (ROOT / url.removeprefix(RAW)).is_file(), url


def test_the_descriptions_name_what_the_models_segment():
    cards = [json.loads(path.read_text(encoding="utf-8")) for path in MODULE.glob("Resources/Models/*/model.json")]
    names = {
        label["name"].lower().removeprefix("left ").removeprefix("right ") for card in cards for label in card["labels"]
    }
    assert {"aorta", "liver"} < names
    for text in (
        extension_value("DESCRIPTION"),
        PROJECT["description"],
        (ROOT / "README.md").read_text(encoding="utf-8"),
    ):
        assert [name for name in names if name not in text] == []


def test_the_description_names_purpose_and_warning():
    description = extension_value("DESCRIPTION")
    assert 100 <= len(description) <= 400
    for word in ("CT", "liver", "UNet++", "research only", "patent"):  # the index wants known patents named here
        assert word in description


def test_the_index_entry_has_the_keys_and_the_kinds_of_values_of_its_schema():
    kinds = {
        "$schema": str,
        "category": str,
        "scm_url": str,
        "scm_revision": str,
        "build_dependencies": list,
        "build_subdirectory": str,
        "tier": int,
    }
    assert {key: type(value) for key, value in INDEX_ENTRY.items()} == kinds
    assert INDEX_ENTRY["$schema"].endswith("/Schemas/slicer-extension-catalog-entry-schema-v1.0.1.json#")
    assert INDEX_ENTRY["tier"] in (1, 3, 5)
    assert all(isinstance(name, str) for name in INDEX_ENTRY["build_dependencies"])


def test_the_index_entry_says_what_the_cmake_file_says():
    assert INDEX_ENTRY["category"] == extension_value("CATEGORY") == "Segmentation"  # one of the index's fixed list
    depends = re.search(r'^set\(EXTENSION_DEPENDS "([^"]+)"\)', CMAKE, re.MULTILINE).group(1)
    assert depends.split() == INDEX_ENTRY["build_dependencies"] == ["PyTorch"]
    assert INDEX_ENTRY["scm_revision"] == "main"


def test_one_home_page_is_named_everywhere():
    assert extension_value("HOMEPAGE") == PROJECT["urls"]["Homepage"] == HOMEPAGE
    assert INDEX_ENTRY["scm_url"] == f"{HOMEPAGE}.git"
    assert urlsplit(INDEX_ENTRY["scm_url"]).scheme == "https"
    assert Path(urlsplit(INDEX_ENTRY["scm_url"]).path).stem == f"Slicer{NAME}"
    assert f'repository-code: "{HOMEPAGE}"' in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_package_citation_and_program_name_one_version(capsys):
    with pytest.raises(SystemExit, match="0"):
        parser().parse_args(["--version"])
    assert capsys.readouterr().out == f"unetpp-segment {__version__}\n"
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_the_changelog_begins_with_this_version():
    versions = re.findall(r"^## \[(\S+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert versions[0] == __version__


@pytest.mark.parametrize("name", [f"{NAME}.json", "CMakeLists.txt", f"{NAME}/CMakeLists.txt", "LICENSE"])
def test_all_files_have_unix_line_endings(name):
    content = (ROOT / name).read_bytes()
    assert b"\r" not in content
    assert content.endswith(b"\n")


def test_git_writes_unix_line_endings_on_windows_too():
    assert "* text=auto eol=lf\n" in (ROOT / ".gitattributes").read_text(encoding="utf-8")


def test_the_index_entry_has_the_layout_of_the_index_s_formatter():
    """Two blanks, keys in order, one array item a line: what prettier with its multi-line arrays plugin writes."""
    text = (ROOT / f"{NAME}.json").read_text(encoding="utf-8")
    assert text == json.dumps(INDEX_ENTRY, indent=2, sort_keys=True) + "\n"


def test_the_licence_is_the_complete_apache_2_0_where_the_index_looks_for_it():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert text.split()[:6] == ["Apache", "License", "Version", "2.0,", "January", "2004"]
    assert re.findall(r"^ {3}(\d)\. [A-Z]", text, re.MULTILINE) == list("123456789")
    assert "END OF TERMS AND CONDITIONS" in text
    assert text.rstrip().endswith("limitations under the License.")
    assert PROJECT["license"].split(" AND ")[0] == "Apache-2.0"


def test_the_readme_names_the_licences_and_what_the_index_asks_for():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {NAME}\n")
    for phrase in ("Apache-2.0", "MODELS_LICENSE.md", "not a medical device", "patent", "doi.org", "make demo"):
        assert phrase in text, phrase


def test_the_readme_shows_what_the_index_asks_of_a_tutorial():
    """Tiers 1 and 3: pictures, a step-by-step tutorial that says where its data come from, how to cite."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert len(pictures) >= 2
    tutorial = text.partition("\n## Tutorial")[2].partition("\n## ")[0]
    for words in ("**Sample Data**", "**UNet++ Segment**", "**Apply**", "**Segment Statistics**"):
        assert words in tutorial
    assert "## How to cite" in text


@pytest.mark.parametrize("page", [*DOCUMENTS.glob("*.md"), *map(ROOT.joinpath, PAGES)], ids=lambda page: page.name)
def test_every_link_in_the_documents_has_a_target(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors_of(target), link


def test_the_readme_is_short_and_leads_to_every_page_of_the_documents():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 180
    assert [page.name for page in DOCUMENTS.glob("*.md") if f"](docs/{page.name})" not in text] == []


def test_a_clone_is_small_enough_for_the_index():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: nothing to measure")
    tracked = git("ls-files", "-z").split("\0")[:-1]
    sizes = [path.stat().st_size for path in map(ROOT.joinpath, tracked) if path.exists()]
    command = ["git", "pack-objects", "--revs", "--stdout", "-q"]  # what a clone gets, however loosely it lies here
    history = subprocess.run(command, input=b"HEAD\n", cwd=ROOT, capture_output=True, check=True).stdout
    assert sum(sizes) + len(history) < INDEX_LIMIT


def test_the_wheel_holds_the_library_the_models_and_both_licences(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, capture_output=True, check=True)
    (wheel,) = tmp_path.glob(f"*-{__version__}-*.whl")
    library = {path for path in files_of_the_module() if path.startswith(f"{NAME}Lib/")}
    models = {path for path in files_of_the_module() if path.startswith("Resources/Models/")}
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        about = {name.partition(".dist-info/")[2]: name for name in archive.namelist() if ".dist-info/" in name}
        commands = archive.read(about["entry_points.txt"]).decode()
        metadata = archive.read(about["METADATA"]).decode()
    assert names == library | {path.replace("Resources/", f"{NAME}Lib/") for path in models}
    assert {"licenses/LICENSE", "licenses/MODELS_LICENSE.md"} <= set(about)
    assert "\nLicense-Expression: Apache-2.0 AND LicenseRef-UNetPlusPlusSegment-Models\n" in metadata
    assert f"unetpp-segment = {NAME}Lib.cli.main:shell" in commands


def test_every_dependency_has_one_tested_version():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    tested = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"==[0-9.]+", str(each.specifier)) for each in tested), "exact, and no local build (+cpu)"
    versions = {canonicalize_name(each.name): str(each.specifier)[2:] for each in tested}
    assert len(versions) == len(tested), "a package is listed twice"
    extras = PROJECT["optional-dependencies"].values()
    for wanted in map(Requirement, [*PROJECT["dependencies"], *(each for extra in extras for each in extra)]):
        assert all(bound.operator == ">=" for bound in wanted.specifier), f"{wanted}: lower bounds only"
        assert wanted.specifier.contains(versions[canonicalize_name(wanted.name)]), wanted


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", ".github/workflows/tests.yml"])
def test_pytorch_s_own_index_is_asked_for_pytorch_alone(page):
    """It need not have the versions of constraints.txt of what PyTorch needs: these come from PyPI, with the next command."""
    commands = [line for line in (ROOT / page).read_text(encoding="utf-8").splitlines() if "--index-url" in line]
    assert commands
    assert [command for command in commands if " --no-deps torch " not in command] == []


def test_every_extra_that_is_named_somewhere_exists():
    texts = [
        path.read_text(encoding="utf-8")
        for path in [*DOCUMENTS.glob("*.md"), *map(ROOT.joinpath, (*PAGES, "Makefile"))]
    ]
    workflow = (ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8")
    named = re.findall(r"\.\[([a-z,]+)\]", "\n".join(texts)) + re.findall(r"EXTRAS: ([a-z,]+)", workflow)
    assert len(named) > 5
    assert {extra for extras in named for extra in extras.split(",")} <= set(PROJECT["optional-dependencies"])


def test_what_continuous_integration_makes_is_in_the_makefile():
    (targets,) = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for script in (".ci/run", ".github/workflows/tests.yml"):
        made = re.findall(r"^(?: *- run: )?make (\S+)$", (ROOT / script).read_text(encoding="utf-8"), re.MULTILINE)
        assert made
        assert set(made) <= set(targets.split())
