"""The book in docs/: its chapters have all parts, its cells run, and its links lead somewhere."""

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pytensor
import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
CHAPTERS = sorted((DOCS / "course").glob("*.md"))
PAGES = [*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "reproduce" / "README.md"]

_CELL = re.compile(r"^```\{code-cell\}\n(---\n.*?^---\n)?(.*?)^```$", re.DOTALL | re.MULTILINE)
_SOURCE = re.compile(
    r"^```\{literalinclude\} (\S+)\n:pyobject: (\S+)\n(?::dedent:\n)?```$", re.MULTILINE
)
_EXERCISE = re.compile(r"^\*\*Exercise (\d)\.\*\* ", re.MULTILINE)
_SOLUTION = re.compile(
    r"^<details>\n<summary>Solution of exercise (\d)</summary>\n\n(.*?)\n\n</details>$",
    re.DOTALL | re.MULTILINE,
)
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
_DRAWS = ("plt.subplots(", "plots.")

chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


def cells(text):
    """Return ``[(options, code)]`` of the code cells of a page, in their order."""
    return [(options or "", code) for options, code in _CELL.findall(text)]


def test_there_are_ten_chapters_in_the_order_of_the_contents():
    listed = re.findall(r"^course/(\S+)$", (DOCS / "index.md").read_text(), re.MULTILINE)
    assert listed == [path.stem for path in CHAPTERS]
    assert [name.split("_")[0] for name in listed] == [f"{i:02}" for i in range(1, 11)]


@chapter
def test_a_chapter_has_a_formula_its_source_a_check_and_a_picture(path):
    text = path.read_text()
    assert len(re.findall(r"^\$\$$", text, re.MULTILINE)) >= 2
    sources = _SOURCE.findall(text)
    assert sources
    for file, name in sources:
        assert name in defined(path.parent / file), f"{file} has no {name}"
    lesson, exercises, _ = text.partition("\n## Exercises\n")
    assert exercises and any("assert " in code for _, code in cells(lesson))
    assert any("alt: " in options for options, _ in cells(lesson))


def defined(path):
    """Return the names of functions, classes and methods that a file defines."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
            methods = [m for m in node.body if isinstance(m, ast.FunctionDef)]
            names |= {f"{node.name}.{method.name}" for method in methods}
    return names


@chapter
def test_a_chapter_has_two_exercises_with_solutions_folded_away(path):
    text = path.read_text()
    lesson, _, exercises = text.partition("\n## Exercises\n")
    assert "<details>" not in lesson
    assert _EXERCISE.findall(exercises) == ["1", "2"]
    solutions = dict(_SOLUTION.findall(exercises))
    assert list(solutions) == ["1", "2"] and all(len(words) > 50 for words in solutions.values())
    assert any("assert " in code for words in solutions.values() for _, code in cells(words))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pictures_say_in_words_what_they_show(path):
    text = path.read_text()
    for options, code in cells(text):
        assert ("alt: " in options) == any(draws in code for draws in _DRAWS), code
    assert all(words.strip() for picture, words, _ in _LINK.findall(text) if picture)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    for _, words, target in _LINK.findall(path.read_text()):
        if "://" not in target:
            assert (path.parent / target.partition("#")[0]).exists(), f"[{words}]({target})"


@chapter
def test_the_cells_of_a_chapter_run(path, monkeypatch):
    """One after the other, as in a notebook. The checks of the text are asserted in them."""
    monkeypatch.chdir(path.parent)
    namespace = {"__name__": "__main__"}
    flags = {"mode": pytensor.config.mode, "cxx": pytensor.config.cxx}  # chapters change them
    with pytensor.config.change_flags(**flags), matplotlib.rc_context():
        matplotlib.use("Agg")
        for _, code in cells(path.read_text()):
            exec(compile(code, path.name, "exec"), namespace)
        plt.close("all")


@pytest.mark.skipif(
    importlib.util.find_spec("myst_nb") is None, reason="Sphinx is not here: see `make docs`"
)
def test_the_book_is_built_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-c", "docs", "."]
    built = subprocess.run([*command, tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert "<math" in (tmp_path / "docs" / "course" / "02_policy.html").read_text()
    from_elsewhere = re.compile(r"<(?:script|link|img)[^>]+(?:src|href)=\"(?:https?:)?//")
    assert [p for p in tmp_path.rglob("*.html") if from_elsewhere.search(p.read_text())] == []
