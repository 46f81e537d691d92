"""A new author's way: a chapter from the template, recorded and judged, and every failure said in one line."""

from __future__ import annotations

import json
import shutil

import pytest
from conftest import ROOT

from tools import chapter, execute, rules

NAME = "14-continuous-time"


@pytest.fixture
def house(tmp_path):
    """A folder with the template and nothing else."""
    (tmp_path / "chapters").mkdir()
    shutil.copy(ROOT / "chapters" / "_template.md", tmp_path / "chapters")
    return tmp_path


def edit(path, old: str, new: str) -> None:
    text = path.read_text("utf8")
    assert old in text
    path.write_text(text.replace(old, new), "utf8")


@pytest.mark.house
def test_a_chapter_from_the_template_runs_and_keeps_every_rule(house, capsys):
    path = chapter.new("16-flow-matching", house)
    assert chapter.judge(path) == []
    assert capsys.readouterr().out.startswith("16-flow-matching: recorded in ")
    text = path.read_text("utf8")
    assert "eq-flow-matching-split" in text
    assert not {"-template-", NAME} & set(text.replace('"', " ").split())
    assert rules.main([str(path)]) == 0


@pytest.mark.parametrize("name", ["", "flow", "16_flow", "16-Flow", "../16-flow-matching", "21-consistency-models"])
def test_a_name_without_a_place_is_refused(house, name):
    with pytest.raises(ValueError, match=r"NAME was|has no place on the map; add it to PLACES in dmlib/book/map\.py"):
        chapter.new(name, house)
    assert list(house.glob("chapters/*.ipynb")) == []


def test_a_number_is_taken_once(house):
    chapter.new(NAME, house)
    with pytest.raises(ValueError, match="the number 14 is taken by 14-continuous-time"):
        chapter.new(NAME, house)


def test_a_chapter_is_found_by_number_name_or_path(house):
    path = chapter.new(NAME, house)
    for said in ("14", NAME, f"{NAME}.ipynb", f"chapters/{NAME}.ipynb"):
        assert chapter.find(said, house) == path
    for said in ("", "4", "15", "continuous"):
        with pytest.raises(ValueError, match=f"CHAPTER was '{said}'; it must be a number or a name of: {NAME}"):
            chapter.find(said, house)


def test_what_breaks_a_rule_or_python_is_named_in_one_line(house):
    path = chapter.new(NAME, house)
    edit(path, "This is the main result.", "Obviously, this is the law.")
    found = rules.faults(path)
    assert f"{NAME}: the stock phrase 'obviously'" in found
    assert f"{NAME}: cell 7 has house words: law" in found
    edit(path, "import torch\\n", "import torch torch\\n")
    found = rules.faults(path)
    assert len(found) == 2
    assert found[0].startswith(f"{NAME}: cell 2, line 2, is not Python: ")
    assert not any("\n" in fault for fault in found)


@pytest.mark.house
@pytest.mark.parametrize("run", ["check", "execute"])
def test_a_failing_cell_is_named_by_chapter_and_number(house, monkeypatch, capsys, run):
    path = chapter.new(NAME, house)
    edit(path, "optimizer = torch", "optimizer = missing")
    if run == "check":
        monkeypatch.setattr(chapter, "find", lambda name: path)
        assert chapter.main(["check", "14"]) == 1
        said = capsys.readouterr().out
    else:
        monkeypatch.setattr(execute, "notebooks", lambda: [path])
        monkeypatch.setattr(execute, "is_fresh", lambda path: False)
        monkeypatch.setattr(execute, "ROOT", house)
        monkeypatch.setattr("sys.argv", ["execute"])
        assert execute.main() == 1
        said = capsys.readouterr().err
    assert said.startswith(f"{NAME}, cell 6, line 8: NameError: name 'missing' is not defined")
    assert said.count("\n") == 1
    assert "\x1b" not in said
    assert "outputs" not in json.loads(path.read_text("utf8"))["cells"][0]


def test_the_command_line_says_what_comes_next(house, monkeypatch, capsys):
    monkeypatch.setattr(chapter, "ROOT", house)
    monkeypatch.setattr(chapter, "new", lambda name, make=chapter.new: make(name, house))
    assert chapter.main(["new", NAME]) == 0
    said = capsys.readouterr().out
    for words in (f"chapters/{NAME}.ipynb was made", "make check CHAPTER=14", "_toc.yml", "intro.md", "README"):
        assert words in said
    assert chapter.main(["new", NAME]) == 1
    assert capsys.readouterr().out == f"the number 14 is taken by {NAME}.ipynb\n"
    assert chapter.main([]) == 2
