"""What the package says about itself agrees."""

import ast
import importlib.metadata
from pathlib import Path

import reinforce_dropout

ROOT = Path(__file__).parents[1]


def test_the_citation_names_the_version():
    version = importlib.metadata.version("reinforce-dropout")
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()


def test_type_checkers_see_every_lazy_name():
    """`__init__` imports them once more for mypy, which does not run `__getattr__`."""
    tree = ast.parse(Path(reinforce_dropout.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: statement.module.removeprefix("reinforce_dropout.")
        for statement in block.body
        for alias in statement.names
    }
    assert seen == reinforce_dropout._HOMES
    assert Path(reinforce_dropout.__file__).with_name("py.typed").exists()
