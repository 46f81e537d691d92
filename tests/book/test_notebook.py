"""What a set-up cell calls, and the normal form: fixed by itself, kept by other tools, filled in by a real kernel."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import nbformat
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dmlib.book import figures, map, notebook, plotting, verify


@pytest.fixture(autouse=True)
def same_style():
    with mpl.rc_context():
        threads = torch.get_num_threads()
        yield
        torch.set_num_threads(threads)


def test_setup_sets_the_style_and_one_thread_and_nothing_else(capsys):
    before = torch.get_default_dtype(), torch.get_rng_state()
    torch.set_num_threads(2)
    assert notebook.setup() is None
    assert mpl.rcParams["svg.hashsalt"] == plotting.STYLE["svg.hashsalt"]
    assert torch.get_num_threads() == 1
    assert torch.get_default_dtype() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert capsys.readouterr().out == ""
    with pytest.raises(TypeError):
        notebook.setup("full")


def test_place_displays_the_map_lit(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    assert notebook.place("04-vae") is None
    assert shown[0]["text/html"] == map.html("04-vae")
    assert "[VAE (2, 4)] > hierarchy" in shown[0]["text/plain"]
    with pytest.raises(ValueError, match="name was '04-van'; it must be a chapter on the map"):
        notebook.place("04-van")


def test_show_displays_the_source_as_it_is(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    assert notebook.show(plotting.curve) is None
    assert notebook.show(functools.wraps(verify.Ledger.report)(lambda: None)) is None
    assert notebook.show(verify.Report) is None
    assert shown[0]["text/markdown"].startswith("```python\ndef curve(\n    ax: Axes")
    assert shown[0]["text/markdown"].endswith("\n```")
    assert shown[0]["text/plain"] in Path(plotting.__file__).read_text("utf8")
    assert shown[1]["text/plain"].startswith("def report(self) -> Report:\n    ")
    assert shown[2]["text/plain"].startswith("class Report:\n    ")


def cell(kind="code", source="x = 1", metadata=None, **more):
    base = {"cell_type": kind, "metadata": metadata or {}, "source": source}
    return base | ({"outputs": [], "execution_count": None} if kind == "code" else {}) | more


def book(*cells, **metadata):
    return {"cells": list(cells), "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def printed(*texts, name="stdout"):
    return [{"output_type": "stream", "name": name, "text": text} for text in texts]


def only(**more):
    """The one cell of the normal form of a notebook with this one cell."""
    return notebook.normalize(book(cell(**more)))["cells"][0]


def test_normal_form_of_a_whole_notebook():
    messy = book(
        cell("markdown", ["# Title  \n", "\n", "Text.\n", "\n"], id="a"),
        cell(source="", metadata={"tags": ["check"]}),
        cell(source="\nx = 1 \n", metadata={"tags": ["hide-input", "setup"], "collapsed": True}, execution_count=7),
        cell(source="check()", metadata={"tags": ["check"]}, outputs=printed("PASS 1\n", ["PASS ", "2\n"])),
        language_info={"name": "python"},
        kernelspec={"name": "other"},
    )
    stream = {"name": "stdout", "output_type": "stream", "text": ["PASS 1\n", "PASS 2\n"]}
    assert notebook.normalize(messy) == {
        "cells": [
            {"cell_type": "markdown", "metadata": {}, "source": ["# Title\n", "\n", "Text."]},
            {
                "cell_type": "code",
                "execution_count": None,
                "metadata": {"tags": ["setup", "hide-input"]},
                "outputs": [],
                "source": ["x = 1"],
            },
            {
                "cell_type": "code",
                "execution_count": 2,
                "metadata": {"tags": ["check", "nbval-check-output"]},
                "outputs": [stream],
                "source": ["check()"],
            },
        ],
        "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
        "nbformat": 4,
        "nbformat_minor": 4,
    }


@pytest.mark.parametrize(
    ("kind", "source", "normal"),
    [
        ("code", 'a = """x  \ny\t\n \n"""  \nb = 1 ', 'a = """x  \ny\t\n \n"""\nb = 1'),
        ("code", 'a = f"""{1}  \n  """  \n# note  \n', 'a = f"""{1}  \n  """\n# note'),
        ("code", "a = (1,  \n2)  ", "a = (1,\n2)"),
        ("code", "%%bash  \necho 'x  \ny'", "%%bash  \necho 'x  \ny'"),
        ("markdown", "one  \ntwo \nthree   \n\n# four  ", "one  \ntwo\nthree\n\n# four"),
    ],
)
def test_blanks_that_mean_something_stay(kind, source, normal):
    assert "".join(only(kind=kind, source=source)["source"]) == normal


OTHERS = {
    "byte order mark": (b"\xef\xbb\xbf" + json.dumps(book(cell())).encode(), "not in normal form: line 1 is"),
    "format 3": (b'{"nbformat": 3, "worksheets": []}', "was one of format 3; it must be one of format 4"),
    "a list": (b"[1, 2]", "was JSON of another kind; it must be one of format 4"),
    "a number": (b"7", "its JSON is not that of a notebook: TypeError"),
    "no JSON": (b"print(1)", "Expecting value"),
    "no text": (b"\xff\xfe\x00", "can't decode byte 0xff"),
    "no cells": (b'{"nbformat": 4}', "its JSON is not that of a notebook: KeyError('cells')"),
    "no source": (json.dumps(book({"cell_type": "code"})).encode(), "not that of a notebook: KeyError('source')"),
    "a text as cell": (json.dumps(book("x = 1")).encode(), "its JSON is not that of a notebook: TypeError"),
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHERS)
def test_notebooks_of_others_end_in_one_line(tmp_path, capsys, kind):
    content, words = OTHERS[kind]
    path = tmp_path / "a.ipynb"
    path.write_bytes(content)
    for command in ("check", "record", "normalize"):
        if kind == "byte order mark" and command != "check":
            continue
        assert notebook.main([command, str(path)]) == 1
        said = capsys.readouterr().out
        assert said.startswith(f"{path}: ")
        assert words in said
        assert said.count("\n") == 1
        assert path.read_bytes() == content
    assert notebook.main(["check", str(tmp_path / "none.ipynb")]) == 1
    if kind == "byte order mark":
        assert notebook.main(["normalize", str(path)]) == 0
        assert notebook.check(path) == []


def test_a_kernel_of_another_environment_is_not_taken(tmp_path, monkeypatch):
    spec = {"argv": ["/bin/false", "{connection_file}"], "display_name": "Other", "language": "python"}
    other = tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json"
    other.parent.mkdir(parents=True)
    other.write_text(json.dumps(spec), "utf8")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    path = chapter(tmp_path / "a.ipynb", "import sys\n---check\nprint(sys.executable)")
    notebook.record(path)
    stored = json.loads(path.read_text("utf8"))["cells"]
    assert stored[1]["outputs"][0]["text"] == [f"{sys.executable}\n"]


def test_only_the_words_of_checks_are_kept():
    figure = {"output_type": "display_data", "data": {"image/png": "x"}, "metadata": {}}
    assert only(outputs=printed("PASS\n"))["outputs"] == []
    kept = only(metadata={"tags": ["check"]}, outputs=[*printed("PASS\n"), figure, *printed("oh\n", name="stderr")])
    assert kept["outputs"] == [{"name": "stdout", "output_type": "stream", "text": ["PASS\n"]}]


def test_figures_and_exercises_keep_their_metadata():
    figure = {"figure": {"name": "fig-a", "caption": "A."}, "image": {"alt": "A line."}}
    graded = {"grade": True, "grade_id": "a", "points": 2}
    kept = only(metadata={"mystnb": figure, "nbgrader": graded, "jupyter": {"source_hidden": True}, "tags": []})
    assert kept["metadata"] == {"mystnb": figure, "nbgrader": graded}


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (
            {"metadata": {"tags": ["check", "invented"]}},
            r"the tags of cell 1 was \['invented'\]; it must be among setup",
        ),
        ({"metadata": {"mystnb": {"figure": {"align": "left"}}}}, "mystnb.figure of cell 1"),
        ({"metadata": {"mystnb": {"code_prompt_show": "More"}}}, "mystnb.code_prompt_show of cell 1"),
        ({"kind": "markdown", "attachments": {"a.png": {}}}, "cell 1 was one with attachments"),
    ],
)
def test_what_the_form_has_no_place_for_is_refused(broken, words):
    with pytest.raises(ValueError, match=words):
        only(**broken)


cells = st.builds(
    cell,
    kind=st.sampled_from(["code", "markdown"]),
    source=st.text(st.sampled_from("ab #\n\t é"), max_size=20),
    metadata=st.fixed_dictionaries({}, optional={"tags": st.lists(st.sampled_from(notebook.TAGS)), "x": st.none()}),
    outputs=st.lists(st.builds(lambda text: printed(text)[0], st.text("ab\n", max_size=6))),
)


@settings(deadline=None)
@given(st.lists(cells, max_size=4))
def test_the_normal_form_is_its_own(cells):
    normal = notebook.normalize(book(*cells))
    again = notebook.normalize(json.loads(json.dumps(normal)))
    assert again == normal
    nbformat.validate(nbformat.from_dict(normal))


def test_check_names_what_is_not_normal(tmp_path):
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps(book(cell("markdown", "# Title"))), "utf8")
    assert notebook.main(["check", str(path)]) == 1
    assert notebook.main(["normalize", str(path)]) == 0
    assert notebook.check(path) == []
    text = path.read_text("utf8")
    path.write_text(text.replace("# Title", "# Title "), "utf8")
    assert notebook.check(path) == [f"{path}: not in normal form: line 7 is '\"# Title \"', normal is '\"# Title\"'"]
    unsorted = dict(reversed(json.loads(text).items()))
    path.write_text(json.dumps(unsorted, indent=1) + "\n", "utf8")
    assert len(notebook.check(path)) == 1
    path.write_text(text + "\n", "utf8")
    assert len(notebook.check(path)) == 1
    path.write_text(text.replace("\n ", "\n  "), "utf8")
    assert len(notebook.check(path)) == 1
    path.write_text("{", "utf8")
    assert len(notebook.check(path)) == 1


def test_command_line_says_how_it_is_used(capsys, tmp_path):
    assert notebook.main([]) == notebook.main(["check"]) == notebook.main(["polish", "a.ipynb"]) == 2
    assert "normalize FILE..." in capsys.readouterr().out
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps(book(cell(metadata={"tags": ["invented"]}))), "utf8")
    done = subprocess.run([sys.executable, "-m", "dmlib.book.notebook", "check", path], capture_output=True, text=True)
    assert done.returncode == 1
    assert "invented" in done.stdout
    assert done.stderr == ""


CHAPTER = """
import os
import matplotlib.pyplot as plt
from dmlib.book import notebook, plotting, verify, widgets
notebook.setup()
ledger = verify.Ledger("01-a")
---check
ledger.close("eq-a", 1, 1, atol=0, claim="one is one")
print(os.environ["OMP_NUM_THREADS"], os.environ["DMLIB_STATIC"], os.path.basename(os.getcwd()))
---
fig, ax = plt.subplots()
plotting.curve(ax, [0, 1], [0, 1], color=plotting.DATA)
plt.show()
---
notebook.show(plotting.curve)
---
figure = widgets.explore(lambda ax, t: ax.plot([0, t]), alt="a line to {t}", t=[1, 2])
figure
---
del os.environ["DMLIB_STATIC"]
figure
---
ledger.report()
"""


def chapter(path, text=CHAPTER):
    parts = [part.partition("\n") for part in ("\n" + text.strip()).split("\n---")]
    made = [cell(source=source, metadata={"tags": [tag.strip()] if tag.strip() else []}) for tag, _, source in parts]
    path.write_text(json.dumps(notebook.normalize(book(*made))), "utf8")
    return path


def test_record_stores_what_checks_print_and_nothing_else(tmp_path, monkeypatch):
    path = chapter(tmp_path / "a.ipynb")
    runs = []
    execute = __import__("nbclient").NotebookClient.execute
    monkeypatch.setattr("nbclient.NotebookClient.execute", lambda self, **kw: runs.append(self) or execute(self, **kw))
    assert notebook.record(path) > 0
    assert notebook.check(path) == []
    stored = json.loads(path.read_text("utf8"))["cells"]
    words = ["PASS eq-a  one is one  [|diff| <= 0]\n", f"1 1 {tmp_path.name}\n"]
    assert [len(c["outputs"]) for c in stored] == [0, 1, 0, 0, 0, 0, 0]
    assert stored[1]["outputs"][0]["text"] == words
    assert stored[1]["execution_count"] == 2
    figure, source, still, live, report = [c.outputs[0].data for c in runs[0].nb.cells[2:]]
    assert "image/svg+xml" in figure
    assert figures.NARROW_MIME in figure
    assert "<dc:date>" not in figure["image/svg+xml"]
    assert source["text/markdown"].startswith("```python\ndef curve")
    assert still["text/html"].count("<img") == 2
    assert set(still) == {"text/plain", "text/html"}
    assert live["text/html"].count("<img") == 1
    assert live["application/vnd.jupyter.widget-view+json"]["model_id"]
    assert report["application/vnd.dmlib.ledger+json"]["chapter"] == "01-a"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import sys\nprint('oh', file=sys.stderr)", "cell 1 of a.ipynb was one that wrote to stderr"),
        ("x = 1\n---check\nx", r"check cell 2 of a.ipynb was \['execute_result'\]; it must be one that only prints"),
        ("x = 1\n---check\nx = 2", r"check cell 2 of a.ipynb was \[\]; it must be one that only prints"),
    ],
)
def test_record_refuses_noise_and_silence(tmp_path, text, words):
    path = chapter(tmp_path / "a.ipynb", text)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=words):
        notebook.record(path)
    assert path.read_bytes() == before
