"""A digest of the kernels' sources, so that PyTensor's cache on disk never holds stale code."""

from hashlib import sha256
from pathlib import Path

_FOLDER = Path(__file__).parent
_ELSEWHERE = [_FOLDER.parent / name for name in ("alignment.py", "packed.py", "submatrix.py")]
_SOURCES = sorted(_FOLDER.glob("*.py")) + _ELSEWHERE

VERSION = int.from_bytes(
    sha256(b"".join(source.read_bytes() for source in _SOURCES)).digest()[:8], "big"
)
