"""A record survives crashes and interrupts, and everything that is no record is refused."""

import errno
import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

import reinforce_dropout
from reinforce_dropout.errors import RecordError, RecordInUseError, ReinforceDropoutError
from reinforce_dropout.results import records

ROOT = Path(reinforce_dropout.__file__).resolve().parents[1]


def make_record(epochs=3, n_units=7, finished=False, value=1.0):
    """Return a record whose every array holds odd bits: NaN payloads, denormals, negative zero."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, (n_units, n_units), dtype=np.uint32).view(np.float32)
    best = {"W_1": bits, "b_1": np.array([-0.0, 5e-324]), "W_out": np.full((2, 3), value, "f4")}
    attributes = {
        "experiment": {"name": "policy-500", "lam": 1e-4, "n_units": [500], "baseline": None},
        "dimensions": {"image_shape": [8, 8], "n_classes": 4},
        "versions": {"python": "3.11"},
        "seed": 2**63,
        "status": "finished" if finished else "unfinished",
        "stopped_by": "patience" if finished else "",
        "n_threads": 2,
    }
    text = ("data", "data_sha256", "backend", "command", "git_commit", "host_cpu", "started")
    attributes |= {name: f"{name} é" for name in text} | {"ended": ""}
    curves = {
        "train_nll": np.full(epochs, value),
        "valid_error": rng.random(epochs),
        "test_error": rng.random(epochs),
        "test_error_sampled": rng.random(epochs),
        "epoch_seconds": rng.random(epochs).astype("f4"),
        "active_fraction": rng.random((epochs, 2)),
        "policy_entropy": rng.random((epochs, 2)),
    }
    best_attributes = {"epoch": 2, "valid_error": 0.1 + 0.2, "test_error": 1 / 3}
    if finished:
        return records.Record(attributes, curves, best, best_attributes)
    checkpoint = best | {
        "count": np.array(3, dtype=np.int64),
        "seen": np.array([True, False]),
        "permutation": np.arange(5, dtype=np.uint8),
        "half": np.ones(2, dtype=np.float16),
        "none": np.empty((0, 4), dtype=np.float32),
    }
    state = {"epoch": 2, "rng": {"state": 2**128 - 1, "inc": 2**127 + 1}, "best": float("inf")}
    return records.Record(attributes, curves, best, best_attributes, checkpoint, state)


def assert_same(left, right):
    assert left.attributes == right.attributes
    assert left.best_attributes == right.best_attributes
    assert left.checkpoint_state == right.checkpoint_state
    for name in ("curves", "best", "checkpoint"):
        ours, theirs = getattr(left, name), getattr(right, name)
        assert (ours is None) == (theirs is None)
        for arrays in [] if ours is None else [(ours[k], theirs[k]) for k in ours | theirs]:
            assert len({(a.dtype, a.shape, a.tobytes()) for a in arrays}) == 1


def start(code, *arguments):
    """Start Python on `code` in another process, with this package importable."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def reseal(image):
    """Put the right checksum on a record that was changed behind the module's back."""
    digest = hashlib.sha256(image[512:]).hexdigest()
    text = f"reinforce-dropout record, version 2\nsha256 {digest}\n"
    return text.encode().ljust(512, b"\0") + image[512:]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.hdf5"


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """Return the bytes of a small record that has every part."""
    path = tmp_path_factory.mktemp("image") / "run.hdf5"
    records.write(path, make_record())
    return path.read_bytes()


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("epochs", [0, 1, 3])
@pytest.mark.parametrize("n_units", [7, 200])  # 200: large enough to be compressed
def test_round_trip_keeps_every_bit(path, finished, epochs, n_units):
    record = make_record(epochs, n_units, finished)
    records.write(path, record)
    again = records.read(path)
    assert_same(again, record)
    assert all(type(again.attributes[k]) is type(v) for k, v in record.attributes.items())
    assert os.listdir(path.parent) == [path.name]


def test_round_trip_before_the_first_epoch_without_policies(path):
    record = make_record(epochs=0)
    record.best, record.best_attributes = {}, {}
    del record.curves["active_fraction"], record.curves["policy_entropy"]
    records.write(path, record)
    assert_same(records.read(path), record)


def test_file_has_the_documented_layout(path):
    records.write(path, make_record())
    with h5py.File(path) as root:
        assert root.attrs["format"] == "reinforce-dropout record, version 2"
        assert '"name": "policy-500"' in root.attrs["experiment"]
        assert '"image_shape": [8, 8]' in root.attrs["dimensions"]
        assert root["curves/valid_error"].shape == (3,)
        assert root["best"].attrs["epoch"] == 2
        assert '"epoch": 2' in root["checkpoint"].attrs["state"]


@pytest.mark.parametrize("finished", [False, True])
def test_equal_records_give_equal_bytes_in_any_order_and_process(path, finished):
    in_order = path.with_name("in_order.hdf5")
    records.write(in_order, make_record(5, 200, finished))
    record = make_record(5, 200, finished)
    for name in ("attributes", "curves", "best"):
        setattr(record, name, dict(reversed(getattr(record, name).items())))
    experiment = record.attributes["experiment"]
    record.attributes["experiment"] = dict(reversed(experiment.items()))
    records.write(path, record)
    code = """
        import sys, time
        from reinforce_dropout.results import records
        time.sleep(1.1)  # a time stamp in the file, in seconds, would differ
        records.write(sys.argv[2], records.read(sys.argv[1]))
    """
    other = path.with_name("other.hdf5")
    assert start(code, path, other).wait() == 0
    assert other.read_bytes() == path.read_bytes() == in_order.read_bytes()


def test_finished_parameters_are_compressed_and_checkpoints_are_not(path):
    weights = np.random.default_rng(0).uniform(-0.1, 0.1, (300, 300)).astype("f4")
    record = make_record(finished=True)
    record.best["W_1"] = weights
    records.write(path, record)
    with h5py.File(path) as root:
        assert root["best/W_1"].id.get_storage_size() < 0.9 * weights.nbytes
        assert root["curves/train_nll"].chunks is None
    record.checkpoint, record.checkpoint_state = {"W_1": weights}, {}
    records.write(path, record)
    with h5py.File(path) as root:
        assert root["best/W_1"].chunks is root["checkpoint/W_1"].chunks is None


def test_a_symbolic_link_is_followed(path):
    link = path.with_name("latest.hdf5")
    link.symlink_to(path)
    records.write(link, make_record())
    assert link.is_symlink() and path.is_file()
    with records.lock(link), pytest.raises(RecordError), records.lock(path):
        pass


WRITER = """
    import itertools, sys
    import numpy as np
    from reinforce_dropout.results import records
    record = records.read(sys.argv[1])
    with records.lock(sys.argv[1]):
        for value in itertools.count(1.0):
            record.best["W_1"] = np.full((1000, 500), value, "f4")
            record.curves["train_nll"][:] = value
            records.write(sys.argv[1], record)
            print("written", flush=True)
"""


def test_kill_at_any_instant_leaves_a_whole_record_and_no_lock(path):
    rng = random.Random(0)
    temporaries = 0
    records.write(path, make_record())
    for _ in range(20):
        writer = start(WRITER, path)
        try:
            assert writer.stdout.readline() == "written\n"  # so the lock of the last one is gone
            deadline = time.monotonic() + rng.uniform(0, 0.05)
            while True:
                record = records.read(path)  # while it is being replaced
                (value,) = set(record.curves["train_nll"])
                assert np.all(record.best["W_1"] == value)
                if time.monotonic() > deadline:
                    break
        finally:
            writer.kill()
            writer.communicate()
        record = records.read(path)
        assert set(record.best["W_1"].flat) == set(record.curves["train_nll"])
        leftovers = set(os.listdir(path.parent)) - {path.name, f".{path.name}.lock"}
        assert len(leftovers) <= 1, "the next writer removes what a killed one left"
        temporaries += len(leftovers)
    assert temporaries, "no kill struck within a write: the test proves nothing"
    with records.lock(path):
        assert sorted(os.listdir(path.parent)) == [f".{path.name}.lock", path.name]


def test_limit_on_file_size_leaves_the_old_record(path):
    records.write(path, make_record())
    before = path.read_bytes()
    code = """
        import resource, signal, sys
        import numpy as np
        from reinforce_dropout.results import records
        record = records.read(sys.argv[1])
        record.best["W_1"] = np.zeros((500, 500))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            records.write(sys.argv[1], record)
        except records.RecordError as error:
            print(error)
    """
    message = start(code, path).communicate()[0]
    assert "(File too large): raise the limit" in message
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs the device that is always full")
def test_full_disk_leaves_the_old_record(path, monkeypatch):
    records.write(path, make_record())
    before = path.read_bytes()
    fdopen = os.fdopen

    def full(descriptor, mode):
        os.dup2(device.fileno(), descriptor)
        return fdopen(descriptor, mode)

    monkeypatch.setattr(os, "fdopen", full)
    with (
        open("/dev/full", "wb") as device,
        pytest.raises(RecordError, match=r"No space left on device\): make room"),
    ):
        records.write(path, make_record(value=2.0))
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_late_trouble_leaves_the_old_record(path, monkeypatch, step, number):
    records.write(path, make_record())
    before = path.read_bytes()

    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(RecordError, match=re.escape(os.strerror(number))):
        records.write(path, make_record(value=2.0))
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize(
    ("name", "mend"),
    [
        ("absent/run.hdf5", "its folder exists"),
        ("file/run.hdf5", "its folder exists"),
        ("x" * 252, "choose a shorter name"),
        ("folder", "name a file"),
    ],
)
def test_places_that_cannot_be_written(tmp_path, name, mend):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(RecordError, match=f"cannot write .*{mend}"):
        records.write(tmp_path / name, make_record())
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


@pytest.mark.parametrize("name", ["absent/run.hdf5", "file/run.hdf5", "folder", "x" * 300])
def test_refuse_unwritable_places(tmp_path, name):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(RecordError):
        records.refuse_unwritable(tmp_path / name)


def test_refuse_unwritable_record(path):
    records.refuse_unwritable(path)
    records.write(path, make_record())
    records.refuse_unwritable(path)
    path.chmod(0o444)
    with pytest.raises(RecordError, match="is read-only: name another file or run chmod"):
        records.refuse_unwritable(path)


def test_refuse_unwritable_folder(path, monkeypatch):
    # Root passes every mode, so the test replaces the answer of the system.
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(RecordError, match="the folder of .* cannot be written in"):
        records.refuse_unwritable(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"No such file or directory\): check its name"),
        (b"", "is not an HDF5 file"),
        (b"epoch,error\n1,0.5\n" * 9, "is not an HDF5 file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(500), "an HDF5 file but no reinforce-dropout record"),
        (b"reinforce-dropout record, version 1\n", "is damaged or cut short"),
        (b"reinforce-dropout record, version 2\n", "is damaged or cut short"),
        (b"reinforce-dropout record, version x\n", "is not an HDF5 file"),
        (
            b"reinforce-dropout record, version 3\nof another layout",
            "of version 3 and this program reads version 2: upgrade",
        ),
    ],
)
def test_read_refuses_other_files(path, content, message):
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecordError, match=message):
        records.read(path)


def test_read_refuses_a_folder(tmp_path):
    with pytest.raises(RecordError, match=r"Is a directory\): name a file"):
        records.read(tmp_path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda r: r.attrs.pop("format"), "lacks format"),
        (lambda r: r.attrs.pop("seed"), "lacks seed"),
        (lambda r: r.attrs.pop("experiment"), "lacks experiment"),
        (lambda r: r.pop("curves/train_nll"), "lacks curves/train_nll"),
        (lambda r: r.attrs.pop("dimensions"), "lacks dimensions"),
        (lambda r: r.pop("curves"), "lacks curves/train_nll, curves/valid_error"),
        (lambda r: r.pop("best"), "lacks best"),
        (lambda r: r["best"].attrs.pop("epoch"), "lacks best.epoch"),
        (lambda r: r["checkpoint"].attrs.pop("state"), "lacks checkpoint.state"),
        (
            lambda r: (r.pop("curves/train_nll"), r.update({"curves/train_nll": np.ones(2)})),
            "curves of unequal length",
        ),
        (
            lambda r: (r.pop("curves/train_nll"), r.update({"curves/train_nll": 1.0})),
            "curves of unequal length",
        ),
    ],
)
def test_read_refuses_incomplete_records(path, spoil, message):
    records.write(path, make_record())
    with h5py.File(path, "r+") as root:
        spoil(root)
    path.write_bytes(reseal(path.read_bytes()))
    with pytest.raises(RecordError, match=message):
        records.read(path)


def test_every_truncation_is_refused(path, image):
    for length in {*range(0, len(image), 97), *range(600), len(image) - 1}:
        path.write_bytes(image[:length])
        with pytest.raises(RecordError):
            records.read(path)


def test_every_flipped_byte_is_refused(path, image):
    # Also in the arrays, where HDF5 would not notice; libhdf5 2.0 crashes on some of the others.
    rng = random.Random(0)
    for position in {*range(600), *rng.sample(range(len(image)), 1000)}:
        damaged = bytearray(image)
        damaged[position] ^= rng.randrange(1, 256)
        path.write_bytes(damaged)
        with pytest.raises(RecordError):
            records.read(path)


def test_lock_excludes_this_process_and_is_released(path):
    with records.lock(path):
        with pytest.raises(RecordError, match="another process is training into"):
            with records.lock(path):
                pytest.fail("two holders of one lock")
    with pytest.raises(ZeroDivisionError), records.lock(path):
        raise ZeroDivisionError
    with records.lock(path), records.lock(path.with_name("other.hdf5")):
        pass


def test_lock_excludes_other_processes_until_they_die(path):
    code = """
        import sys, time
        from reinforce_dropout.results import records
        with records.lock(sys.argv[1]):
            print("held", flush=True)
            time.sleep(60)
    """
    holder = start(code, path)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RecordError, match="another process is training into"):
            with records.lock(path):
                pytest.fail("two holders of one lock")
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    with records.lock(path):
        pass


def test_lock_refuses_what_cannot_be_written(tmp_path):
    with pytest.raises(RecordError, match="its folder exists"):
        with records.lock(tmp_path / "absent" / "run.hdf5"):
            pytest.fail("a lock that is nowhere")
    assert not os.listdir(tmp_path)
    with pytest.raises(RecordError, match="cannot write .*choose a shorter name"):
        with records.lock(tmp_path / ("x" * 240)):  # too long for the temporary file's name only
            pytest.fail("a lock on what cannot be written")


def test_a_record_with_curves_only(tmp_path):
    record = make_record(epochs=300, n_units=500, finished=True)
    records.write(tmp_path / "whole.hdf5", record)
    records.write(tmp_path / "curves.hdf5", record.curves_only())
    found = records.read(tmp_path / "curves.hdf5")
    assert found.best == {} and found.best_attributes == record.best_attributes
    assert found.attributes == record.attributes and found.best_epoch == 2
    for name, curve in record.curves.items():
        np.testing.assert_array_equal(found.curves[name], curve.astype("float32"), strict=True)
    whole, curves = ((tmp_path / f"{n}.hdf5").stat().st_size for n in ("whole", "curves"))
    assert curves < 40_000 < whole / 20


def test_an_unfinished_record_keeps_its_parameters():
    with pytest.raises(RecordError, match="unfinished"):
        make_record().curves_only()


def test_a_lock_that_is_held_is_told_from_other_troubles(tmp_path):
    with records.lock(tmp_path / "r.hdf5"), pytest.raises(RecordInUseError):
        with records.lock(tmp_path / "r.hdf5"):
            pass


def test_curves_as_a_frame():
    record = make_record()
    frame = record.to_frame()
    assert list(frame.index) == [1, 2, 3] and frame.index.name == "epoch"
    np.testing.assert_array_equal(frame["train_nll"], record.curves["train_nll"])
    np.testing.assert_array_equal(frame["test_error_sampled"], record.curves["test_error_sampled"])
    np.testing.assert_array_equal(frame["policy_entropy_2"], record.curves["policy_entropy"][:, 1])
    assert frame.shape == (3, 5 + 2 + 2)


def test_a_frame_needs_pandas(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ReinforceDropoutError, match="pip install pandas"):
        make_record().to_frame()
