"""Data sets: the packaged MNIST is the published one, and bad files are told from good ones."""

import gzip
import hashlib
import os
import runpy
import subprocess
import sys
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from idx import idx_bytes, write_dataset, write_idx

from reinforce_dropout.errors import DataError
from reinforce_dropout.running import datasets
from reinforce_dropout.running.formats import idx

ROOT = Path(__file__).parents[2]
PACK_MNIST = ROOT / "reinforce_dropout" / "data" / "pack_mnist.py"
PACK = runpy.run_path(str(PACK_MNIST))

TRAIN_IMAGES = "train-images-idx3-ubyte"
TRAIN_LABELS = "train-labels-idx1-ubyte"
TEST_IMAGES = "t10k-images-idx3-ubyte"
TEST_LABELS = "t10k-labels-idx1-ubyte"

BYTE_ARRAYS = st.integers(1, 4).flatmap(
    lambda n_dims: hnp.arrays(
        np.uint8, hnp.array_shapes(min_dims=n_dims, max_dims=n_dims, max_side=5)
    )
)


@pytest.fixture(scope="module")
def mnist():
    """Load the packaged MNIST once."""
    return datasets.load()


@pytest.fixture
def folder(tmp_path):
    """Write a sound data set of 60 training and 20 test images, to be damaged."""
    return write_dataset(tmp_path / "sound", n_train=60, n_test=20, shape=(3, 2), n_classes=4)


def rejects(action, *fragments):
    """Assert that an action raises a DataError of one line that holds all fragments."""
    with pytest.raises(DataError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message


def pack_folder(folder, out):
    """Pack a folder of IDX files that need not be MNIST."""
    paths = idx.find_idx_files(folder)
    arrays = {p: idx.read_idx(f, idx.IDX_PARTS[p][1]) for p, f in paths.items()}
    PACK["pack"](arrays, out)


# ---- The packaged MNIST ----


@pytest.mark.parametrize("part", idx.IDX_PARTS)
def test_packaged_mnist_has_the_published_md5(part):
    array = datasets.read_packaged(datasets.PACKAGED_MNIST)[part]
    assert hashlib.md5(idx_bytes(array)).hexdigest() == PACK["ORIGINAL_MD5"][part]


def test_packaged_mnist_names_its_authors_and_licence():
    with h5py.File(datasets.PACKAGED_MNIST) as file:
        assert "LeCun" in file.attrs["authors"] and "Cortes" in file.attrs["authors"]
        assert "CC BY-SA 3.0" in file.attrs["licence"]


def test_mnist_split_shapes_and_types(mnist):
    assert (len(mnist.train), len(mnist.valid), len(mnist.test)) == (50_000, 10_000, 10_000)
    assert (mnist.name, mnist.n_in, mnist.n_classes) == ("mnist", 784, 10)
    assert mnist.image_shape == (28, 28)
    for part in (mnist.train, mnist.valid, mnist.test):
        assert part.images.shape == (len(part), 784) and part.labels.shape == (len(part),)
        assert part.images.dtype == np.float32 and part.labels.dtype == np.int32
        assert part.images.flags.c_contiguous
        assert part.images.min() == 0 and part.images.max() == 1


def test_mnist_keeps_the_order_and_value_of_pixels(mnist):
    raw = datasets.read_packaged(datasets.PACKAGED_MNIST)
    for part, images, labels in (
        (mnist.train, raw["train_images"][:50_000], raw["train_labels"][:50_000]),
        (mnist.valid, raw["train_images"][50_000:], raw["train_labels"][50_000:]),
        (mnist.test, raw["test_images"], raw["test_labels"]),
    ):
        pixels = images.reshape(len(images), 784).astype(np.float32) / np.float32(255)
        assert np.array_equal(part.images, pixels)
        assert np.array_equal(part.labels, labels)


def test_train_and_valid_share_one_allocation(mnist):
    assert mnist.train.images.base is mnist.valid.images.base is not None


# ---- MNIST with inverted images ----


def test_half_of_the_images_are_inverted(mnist):
    """Each image is MNIST's or its negative, exactly half of both sets, and no label changes."""
    inverted = datasets.load("mnist-inverted")
    assert (inverted.name, inverted.n_in, inverted.n_classes) == ("mnist-inverted", 784, 10)
    assert inverted.sha256 != mnist.sha256
    n_inverted = {}
    for part in ("train", "valid", "test"):
        ours, before = getattr(inverted, part), getattr(mnist, part)
        np.testing.assert_array_equal(ours.labels, before.labels)
        same = (ours.images == before.images).all(axis=1)
        negative = (np.abs(ours.images + before.images - 1) < 1e-6).all(axis=1)
        assert (same ^ negative).all()
        n_inverted[part] = negative.sum()
    assert n_inverted["train"] + n_inverted["valid"] == 30_000 and n_inverted["test"] == 5_000
    assert 4_500 < n_inverted["valid"] < 5_500


def test_inverted_images_are_chosen_at_random_and_always_the_same():
    """No class and no place in the file is favoured; the digest is that of everybody's copy."""
    mnist, inverted = datasets.read_mnist(), datasets.read_inverted_mnist()
    chosen = (mnist["train_images"] != inverted["train_images"]).any(axis=(1, 2))
    shares = [chosen[mnist["train_labels"] == c].mean() for c in range(10)]
    shares += [part.mean() for part in np.split(chosen, 10)]
    assert all(0.47 < share < 0.53 for share in shares)
    digest = datasets.digest(inverted)
    assert digest == datasets.load("mnist-inverted").sha256 == INVERTED_SHA256


INVERTED_SHA256 = "84299ac4bbd19918b7e12492d3e71925f70c4abbaf3461f3dc8f18c1ef247a48"


# ---- IDX folders ----


@pytest.mark.parametrize("packed", [False, True])
def test_packaged_file_and_idx_folder_load_alike(tmp_path, monkeypatch, packed):
    folder = write_dataset(tmp_path / "idx", gzip=packed)
    pack_folder(folder, tmp_path / "packaged.hdf5")
    monkeypatch.setattr(datasets, "PACKAGED_MNIST", tmp_path / "packaged.hdf5")
    ours, packaged = datasets.load(folder), datasets.load("mnist")
    assert ours.sha256 == packaged.sha256
    assert (ours.n_in, ours.n_classes) == (packaged.n_in, packaged.n_classes) == (64, 4)
    assert ours.image_shape == packaged.image_shape == (8, 8)
    assert ours.name == str(folder)
    for part in ("train", "valid", "test"):
        a, b = getattr(ours, part), getattr(packaged, part)
        np.testing.assert_array_equal(a.images, b.images)
        np.testing.assert_array_equal(a.labels, b.labels)


@pytest.mark.parametrize("as_given", [str, Path])
@pytest.mark.parametrize("new_name", ["train-images.idx3-ubyte", "train-images.idx3-ubyte.gz"])
def test_a_dot_may_stand_before_idx(folder, new_name, as_given):
    before = datasets.load(folder)
    contents = (folder / TRAIN_IMAGES).read_bytes()
    (folder / TRAIN_IMAGES).unlink()
    (folder / new_name).write_bytes(gzip.compress(contents) if "gz" in new_name else contents)
    assert datasets.load(as_given(folder)).sha256 == before.sha256


def test_n_classes_is_one_more_than_the_largest_training_label(folder):
    labels = np.arange(60, dtype=np.uint8) % 4
    labels[0] = 6
    write_idx(folder / TRAIN_LABELS, labels)
    assert datasets.load(folder).n_classes == 7


@pytest.mark.parametrize("fraction, n_valid", [(0.25, 15), (0.99, 59), (0.01, 1), (1 / 7, 9)])
def test_validation_set_is_the_rounded_end_of_the_training_file(folder, fraction, n_valid):
    write_idx(folder / TRAIN_LABELS, np.zeros(60, np.uint8))
    write_idx(folder / TEST_LABELS, np.zeros(20, np.uint8))
    whole = datasets.load(folder)
    data = datasets.load(folder, validation_fraction=fraction)
    assert (len(data.train), len(data.valid)) == (60 - n_valid, n_valid)
    np.testing.assert_array_equal(
        np.concatenate([data.train.images, data.valid.images]),
        np.concatenate([whole.train.images, whole.valid.images]),
    )
    assert data.sha256 == whole.sha256


@pytest.mark.parametrize("name", [TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS])
def test_digest_notices_one_changed_byte(folder, name):
    before = datasets.load(folder).sha256
    contents = bytearray((folder / name).read_bytes())
    contents[-1] ^= 1
    (folder / name).write_bytes(contents)
    assert datasets.load(folder).sha256 != before


def test_digest_notices_another_shape_of_the_same_bytes(folder):
    before = datasets.load(folder).sha256
    for name in (TRAIN_IMAGES, TEST_IMAGES):
        images = idx.read_idx(folder / name, 3)
        write_idx(folder / name, images.reshape(len(images), 2, 3))
    assert datasets.load(folder).sha256 != before


def test_small_data_set_is_learnable(tmp_path):
    data = datasets.load(write_dataset(tmp_path, n_classes=10, shape=(6, 5)))
    assert data.image_shape == (6, 5)
    means = np.stack([data.train.images[data.train.labels == k].mean(0) for k in range(10)])
    distances = ((data.test.images[:, None] - means) ** 2).sum(2)
    assert (distances.argmin(1) == data.test.labels).mean() == 1


@given(array=BYTE_ARRAYS)
def test_parse_idx_inverts_the_writer(array):
    parsed = idx.parse_idx(idx_bytes(array), array.ndim, Path("x"))
    assert parsed.dtype == np.uint8
    np.testing.assert_array_equal(parsed, array)


@given(array=BYTE_ARRAYS, data=st.data())
def test_every_cut_of_an_idx_file_is_noticed(array, data):
    contents = idx_bytes(array)
    cut = data.draw(st.integers(0, len(contents) - 1))
    rejects(lambda: idx.parse_idx(contents[:cut], array.ndim, Path("x")), "x ")


@given(head=st.sampled_from([b"", b"\0\0\x08\x01", b"\0\0\x08\x03"]), tail=st.binary(max_size=40))
def test_arbitrary_bytes_raise_nothing_but_a_data_error(head, tail):
    for n_dims in (1, 3):
        try:
            assert idx.parse_idx(head + tail, n_dims, Path("x")).ndim == n_dims
        except DataError:
            pass


# ---- Bad folders and files ----


def test_missing_folder(tmp_path):
    rejects(
        lambda: datasets.load(tmp_path / "minst"),
        "minst",
        "No such file",
        "give a name such as mnist",
    )


def test_a_file_is_no_folder(folder):
    rejects(
        lambda: datasets.load(folder / TRAIN_IMAGES),
        "Not a directory",
        "the four files, or a file whose name ends in .npz",
    )


@pytest.mark.parametrize(
    "name, part",
    [
        (TRAIN_IMAGES, "train images"),
        (TRAIN_LABELS, "train labels"),
        (TEST_IMAGES, "test images"),
        (TEST_LABELS, "test labels"),
    ],
)
def test_missing_file_is_named_with_its_accepted_names(folder, name, part):
    (folder / name).unlink()
    dotted = name.replace("-idx", ".idx")
    rejects(lambda: datasets.load(folder), f"lacks the {part}", name, f"{name}.gz", dotted + ".gz")


@pytest.mark.parametrize("contents", [b"", b"\0\0\x08", b"\x89PNG and more", b"\0\1\x08\3" * 9])
def test_not_an_idx_file(folder, contents):
    (folder / TRAIN_IMAGES).write_bytes(contents)
    rejects(lambda: datasets.load(folder), TRAIN_IMAGES, "not an IDX file", "supply the data")


@pytest.mark.parametrize("dtype", ["int8", "int32", "float32"])
def test_elements_other_than_unsigned_bytes(folder, dtype):
    write_idx(folder / TRAIN_LABELS, np.zeros(60, dtype))
    rejects(lambda: datasets.load(folder), TRAIN_LABELS, "write it with unsigned bytes")


def test_wrong_number_of_dimensions(folder):
    write_idx(folder / TRAIN_IMAGES, np.zeros((60, 6), np.uint8))
    rejects(lambda: datasets.load(folder), "2 dimensions instead of 3", "(n, rows, columns)")


def test_images_in_place_of_labels(folder):
    write_idx(folder / TEST_LABELS, np.zeros((20, 3, 2), np.uint8))
    rejects(lambda: datasets.load(folder), TEST_LABELS, "3 dimensions instead of 1")


@pytest.mark.parametrize("n_bytes", [5, 15, 16, 375])
def test_truncated_file(folder, n_bytes):
    contents = (folder / TRAIN_IMAGES).read_bytes()
    assert len(contents) == 376
    (folder / TRAIN_IMAGES).write_bytes(contents[:n_bytes])
    rejects(lambda: datasets.load(folder), TRAIN_IMAGES, "truncated", "fetch or write it again")


def test_trailing_bytes(folder):
    with open(folder / TEST_LABELS, "ab") as file:
        file.write(b"\0\0")
    rejects(lambda: datasets.load(folder), TEST_LABELS, "goes on after", "again")


def test_a_packed_file_is_read_no_further_than_its_header_says(tmp_path, monkeypatch):
    array = np.arange(60, dtype=np.uint8)
    path = tmp_path / "labels.gz"
    for contents in (idx_bytes(array) + bytes(1 << 24), b"\0\0\x08\x03" + bytes(1 << 24)):
        path.write_bytes(gzip.compress(contents))
        assert len(idx.unpack(path, 1)) <= 8 + 60 + 1
    monkeypatch.setattr(idx, "PIECE_BYTES", 7)
    path.write_bytes(gzip.compress(idx_bytes(array)))
    np.testing.assert_array_equal(idx.read_idx(path, 1), array)


@pytest.mark.parametrize("name", [TRAIN_LABELS, TEST_LABELS])
def test_empty_labels(folder, name):
    write_idx(folder / name, np.zeros(0, np.uint8))
    rejects(lambda: datasets.load(folder), name, "empty", "at least one example")


@pytest.mark.parametrize("shape", [(0, 3, 2), (60, 0, 2), (60, 3, 0)])
def test_empty_images(folder, shape):
    write_idx(folder / TRAIN_IMAGES, np.zeros(shape, np.uint8))
    rejects(lambda: datasets.load(folder), TRAIN_IMAGES, "empty", "at least one pixel")


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_an_absurd_header_reserves_no_memory(tmp_path, suffix):
    path = tmp_path / f"{TRAIN_IMAGES}{suffix}"
    header = b"\0\0\x08\x03" + b"\xff" * 12
    path.write_bytes(gzip.compress(header) if suffix else header)
    tracemalloc.start()
    try:
        rejects(lambda: idx.read_idx(path, 3), "truncated")
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


def damage_gzip(how, contents):
    """Return gzipped contents that are damaged in a given way."""
    packed = bytearray(gzip.compress(contents))
    if how == "no gzip at all":
        return contents
    if how == "cut":
        return packed[:-20]
    position = {"stream": 10, "checksum": len(packed) - 8}[how]
    packed[position] ^= 0xFF
    return packed


@pytest.mark.parametrize("how", ["no gzip at all", "cut", "stream", "checksum"])
def test_corrupt_gzip(folder, how):
    path = folder / TRAIN_IMAGES
    (folder / f"{TRAIN_IMAGES}.gz").write_bytes(damage_gzip(how, path.read_bytes()))
    path.unlink()
    rejects(lambda: datasets.load(folder), f"{TRAIN_IMAGES}.gz is not an intact gzip", "fetch it")


def test_a_folder_in_place_of_a_file(folder):
    (folder / TRAIN_LABELS).unlink()
    (folder / TRAIN_LABELS).mkdir()
    rejects(lambda: datasets.load(folder), TRAIN_LABELS, "cannot be read (Is a directory)")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["", TRAIN_IMAGES])
def test_unreadable_file_or_folder(folder, name):
    mode = (folder / name).stat().st_mode
    (folder / name).chmod(0)
    try:
        rejects(lambda: datasets.load(folder), "cannot be read", "Permission denied", "read")
    finally:
        (folder / name).chmod(mode)


# ---- Files that do not belong together ----


@pytest.mark.parametrize(
    "name, subset, n", [(TRAIN_LABELS, "train", 60), (TEST_LABELS, "test", 20)]
)
def test_images_and_labels_of_different_lengths(folder, name, subset, n):
    write_idx(folder / name, np.zeros(n - 1, np.uint8))
    rejects(
        lambda: datasets.load(folder),
        f"{subset} files have {n} images but {n - 1} labels",
        "supply two files of the same examples",
    )


def test_train_and_test_images_of_different_sizes(folder):
    write_idx(folder / TEST_IMAGES, np.zeros((20, 2, 3), np.uint8))
    rejects(lambda: datasets.load(folder), "3 x 2", "2 x 3", "bring both to one size")


def test_test_label_never_trained_on(folder):
    labels = np.arange(20, dtype=np.uint8) % 4
    labels[7] = 9
    write_idx(folder / TEST_LABELS, labels)
    rejects(lambda: datasets.load(folder), "the test label 9", "correct the labels")


def test_sorted_training_file_leaves_validation_labels_never_trained_on(folder):
    write_idx(folder / TRAIN_LABELS, np.repeat(np.arange(12, dtype=np.uint8), 5))
    rejects(lambda: datasets.load(folder), "the validation label 10, 11", "shuffle the examples")


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan"), float("inf")])
def test_validation_fraction_out_of_range(folder, fraction):
    rejects(lambda: datasets.load(folder, fraction), "validation_fraction is", "between 0 and 1")


@pytest.mark.parametrize("fraction, part", [(0.001, "validation"), (0.999, "training")])
def test_validation_fraction_that_leaves_a_part_empty(folder, fraction, part):
    rejects(lambda: datasets.load(folder, fraction), f"no {part} example", "fraction nearer to 1/2")


# ---- A damaged installation, and the tool ----


def test_packaged_file_missing(tmp_path):
    rejects(
        lambda: datasets.read_packaged(tmp_path / "none.hdf5"), "none.hdf5", "missing", "reinstall"
    )


def chunk_positions(path):
    """Return the positions in a packed file of the bytes that hold pixels and labels."""
    positions = set()
    with h5py.File(path) as file:
        for part in idx.IDX_PARTS:
            for index in range(file[part].id.get_num_chunks()):
                chunk = file[part].id.get_chunk_info(index)
                positions.update(range(chunk.byte_offset, chunk.byte_offset + chunk.size))
    return positions


def test_damage_to_a_packed_file_is_noticed_or_harmless(tmp_path):
    path = tmp_path / "packed.hdf5"
    pack_folder(write_dataset(tmp_path, n_train=12, n_test=8, shape=(2, 2)), path)
    sound, before = path.read_bytes(), datasets.digest(datasets.read_packaged(path))
    probed = range(0, len(sound), 7)
    must_be_noticed = chunk_positions(path).intersection(probed)
    noticed = set()
    for position in probed:
        damaged = bytearray(sound)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        try:
            assert datasets.digest(datasets.read_packaged(path)) == before
        except DataError as error:
            assert "reinstall" in str(error) and "\n" not in str(error)
            noticed.add(position)
    assert len(must_be_noticed) >= len(idx.IDX_PARTS)
    assert must_be_noticed <= noticed


def test_truncated_packaged_file(tmp_path):
    path = tmp_path / "packed.hdf5"
    path.write_bytes(datasets.PACKAGED_MNIST.read_bytes()[:5000])
    rejects(lambda: datasets.read_packaged(path), "damaged", "reinstall")


def test_packing_twice_gives_the_same_bytes(tmp_path, folder):
    for name in ("a.hdf5", "b.hdf5"):
        pack_folder(folder, tmp_path / name)
    assert (tmp_path / "a.hdf5").read_bytes() == (tmp_path / "b.hdf5").read_bytes()


def test_failed_packing_leaves_the_old_file(tmp_path):
    out = tmp_path / "out.hdf5"
    out.write_bytes(b"old")
    with pytest.raises(TypeError):
        PACK["pack"]({"train_images": np.array([None])}, out)
    assert out.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["out.hdf5"]


def test_tool_refuses_what_is_not_mnist(tmp_path, folder):
    out = tmp_path / "out.hdf5"
    finished = subprocess.run(
        [sys.executable, PACK_MNIST, folder, out],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert finished.returncode == 1
    assert finished.stderr.startswith("error: ") and finished.stderr.count("\n") == 1
    assert "not the published MNIST file" in finished.stderr
    assert not out.exists()
