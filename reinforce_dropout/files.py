"""Files that are replaced as a whole: a reader, or a crash, finds the old or the new one."""

import contextlib
import errno
import os
import re
import secrets
from pathlib import Path

_NO_SYNC_OF_FOLDERS = (errno.EINVAL, errno.ENOTSUP)


def replace(path, contents):
    """Write a file beside `path`, and rename it over `path` or what that links to.

    The new file has the mode of the one it replaces.

    Parameters
    ----------
    path : path
    contents : bytes or memoryview

    Raises
    ------
    OSError
        The disk is full, the folder is missing or may not be written in, or the like; the old file
        is untouched.
    """
    target = real(path)
    temporary = new_name(target)
    try:
        # Nobody can have put a link or a file under this name: the bytes go to a new file.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(temporary, flags, 0o666), "wb") as file:
            with contextlib.suppress(FileNotFoundError):
                os.fchmod(file.fileno(), target.stat().st_mode & 0o777)
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())  # else a power cut could leave the new name on no data
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(target.parent)


def real(path):
    """Return the file itself: a rename onto a symbolic link would replace the link."""
    return Path(os.path.realpath(path))


def new_name(target):
    """Return an unpredictable name beside `target` for what is going to replace it."""
    return target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")


def remove_leftovers(target):
    """Remove what killed writers of `target` left; nobody may be writing it now."""
    pattern = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{16}}\.tmp")
    for name in os.listdir(target.parent):
        if pattern.fullmatch(name):
            target.with_name(name).unlink(missing_ok=True)


def _sync_folder(folder):
    """Make a rename in `folder` survive a power cut, where its file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC_OF_FOLDERS:
            raise
    finally:
        os.close(descriptor)
