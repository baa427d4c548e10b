"""Files that are replaced as a whole: a reader, or a crash, finds the old or the new one."""

import contextlib
import errno
import os
import re
import secrets
from pathlib import Path

from reinforce_dropout.errors import ReinforceDropoutError

_NO_SYNC_OF_FOLDERS = (errno.EINVAL, errno.ENOTSUP)


def replace(path, contents):
    """Write bytes beside `path`, and rename the file over `path` or the target of a link there.

    The new file has the mode of the old one. After an OSError the old file is untouched.
    """
    target = real(path)
    temporary = new_name(target)
    try:
        # Always a new file: nobody can have put a link or a file under this name.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(temporary, flags, 0o666), "wb") as file:
            with contextlib.suppress(FileNotFoundError):
                os.fchmod(file.fileno(), target.stat().st_mode & 0o777)
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())  # otherwise a power cut could leave the new name without data
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(target.parent)


def write_whole(path: Path, contents: bytes) -> None:
    """Make the folder if needed, and `replace` the file; an OSError becomes a sentence."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, contents)
    except OSError as error:
        raise ReinforceDropoutError(
            f"cannot write {path} ({error.strerror or error}): make room or choose another place."
        ) from error


def real(path):
    """Return the file itself: a rename onto a symbolic link would replace the link."""
    return Path(os.path.realpath(path))


def new_name(target):
    """Return an unpredictable name beside `target` for the file that will replace it."""
    return target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")


def remove_leftovers(target):
    """Remove the files that killed writers of `target` left; nobody may be writing it now."""
    pattern = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{16}}\.tmp")
    for name in os.listdir(target.parent):
        if pattern.fullmatch(name):
            target.with_name(name).unlink(missing_ok=True)


def _sync_folder(folder):
    """Make a rename in `folder` survive a power cut, if its file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC_OF_FOLDERS:
            raise
    finally:
        os.close(descriptor)
