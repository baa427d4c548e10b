"""A digest of the kernels' sources: with another digest, PyTensor's cache on disk is not used."""

from hashlib import sha256
from pathlib import Path

_FOLDER = Path(__file__).parent
_BLOCKS = _FOLDER.parent / "blocks"
# Kernels compile checks that stand there.
_ELSEWHERE = [_FOLDER.parent / "alignment.py", *sorted(_BLOCKS.glob("*.py"))]
_SOURCES = sorted(_FOLDER.rglob("*.py")) + _ELSEWHERE

VERSION = int.from_bytes(
    sha256(b"".join(source.read_bytes() for source in _SOURCES)).digest()[:8], "big"
)
