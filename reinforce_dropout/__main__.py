"""``python -m reinforce_dropout`` is the command ``reinforce-dropout``."""

from reinforce_dropout.cli import main

main(prog_name="reinforce-dropout")
