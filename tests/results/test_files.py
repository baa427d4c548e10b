"""Files are replaced as a whole, through links, with their mode, and never by a planted file."""

import errno
import os
import secrets
import stat

import pytest

from reinforce_dropout.results import files


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    return path


def test_a_planted_link_is_not_followed(path, monkeypatch):
    victim = path.with_name("victim")
    victim.write_bytes(b"precious")
    monkeypatch.setattr(secrets, "token_hex", lambda _: "0" * 16)  # even a name that was guessed
    files.new_name(path).symlink_to(victim)
    with pytest.raises(FileExistsError):
        files.replace(path, b"new")
    assert (victim.read_bytes(), path.read_bytes()) == (b"precious", b"old")


def test_names_cannot_be_predicted(path):
    assert len({files.new_name(path) for _ in range(100)}) == 100


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444])
def test_the_mode_of_what_is_replaced_is_kept(path, mode):
    path.chmod(mode)
    files.replace(path, b"new")
    assert path.read_bytes() == b"new" and stat.S_IMODE(path.stat().st_mode) == mode


def test_a_new_file_has_the_mode_that_open_gives(path):
    other = path.with_name("other")
    files.replace(other, b"new")
    path.with_name("opened").touch()
    assert other.stat().st_mode == path.with_name("opened").stat().st_mode


def test_a_link_is_followed_to_the_file_that_is_meant(path):
    link = path.with_name("link")
    link.symlink_to(path)
    files.replace(link, b"new")
    assert link.is_symlink() and path.read_bytes() == b"new"


def test_nothing_is_left_where_the_rename_fails(path, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, "trouble")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="trouble"):
        files.replace(path, b"new")
    assert path.read_bytes() == b"old" and os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_a_folder_that_cannot_be_synchronised_is_no_error(path, monkeypatch, number):
    fsync = os.fsync

    def sync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    if number == errno.EINVAL:  # some network file systems
        files.replace(path, b"new")
    else:
        with pytest.raises(OSError, match=os.strerror(number)):
            files.replace(path, b"new")
    assert path.read_bytes() == b"new"


def test_leftovers_of_this_file_only_are_removed(path):
    others = ["file.hdf5", ".file.tmp", ".file.hdf5.0123456789abcdef.tmp", ".file.lock"]
    for name in others:
        path.with_name(name).touch()
    files.new_name(path).touch()
    files.new_name(path).touch()
    files.remove_leftovers(path)
    assert sorted(os.listdir(path.parent)) == sorted(["file", *others])
