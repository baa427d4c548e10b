"""The paper on one screen: short, of library functions only, and it runs."""

import ast
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "reproduce" / "by_hand.py"


def test_it_fits_a_screen():
    text = SCRIPT.read_text()
    assert text.count("\n") <= 80
    modules = {n.module for n in ast.walk(ast.parse(text)) if isinstance(n, ast.ImportFrom)}
    own = {name for name in modules if name.startswith("reinforce_dropout")}
    assert not any(name.startswith("reinforce_dropout.systems") for name in own)
    assert not any("learner" in name or "training" in name for name in own)


def test_its_facts_hold_and_its_functions_compile():
    """Without an epoch of training: the facts of section 4 are asserted in the script."""
    command = [sys.executable, SCRIPT, "0"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert process.returncode == 0, process.stderr
    first, last = process.stdout.splitlines()
    assert first.startswith("before training") and last.startswith("test error")
