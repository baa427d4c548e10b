"""Data of one's own: all formats give the same examples, and errors name the fix."""

import numpy as np
import pytest
from click.testing import CliRunner
from idx import class_examples, write_dataset
from PIL import Image

from reinforce_dropout import load_evaluation, train
from reinforce_dropout.cli import main
from reinforce_dropout.errors import DataError
from reinforce_dropout.results import records
from reinforce_dropout.running import datasets
from reinforce_dropout.running.formats import arrays, idx
from reinforce_dropout.systems import policy

WORDS = np.array(["ace", "king", "queen", "ten"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data set as four IDX files."""
    return write_dataset(tmp_path_factory.mktemp("idx"), n_train=60, n_test=20, shape=(3, 2))


@pytest.fixture(scope="module")
def parts(folder):
    """Its arrays: images, labels, images and labels for testing."""
    return tuple(idx.read(folder).arrays[part] for part in arrays.PARTS)


def write_csv(path, X, y, names=None):
    """Write a table with the label in the second column."""
    names = names or ["first", "label", *(f"pixel{i}" for i in range(2, X.shape[1] + 1))]
    rows = [[x[0], label, *x[1:]] for x, label in zip(X, y, strict=True)]
    path.write_text("\n".join(",".join(map(str, row)) for row in [names, *rows]) + "\n")


def write_pictures(folder, images, labels):
    for k, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / str(label) / f"{k:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


def as_arrays(path, parts):
    return parts


def as_npz(path, parts):
    names = "x_train", "y_train", "x_test", "y_test"
    np.savez_compressed(path / "data.npz", **dict(zip(names, parts, strict=True)))
    return path / "data.npz"


def as_table(path, parts):
    for name, X, y in (("train", *parts[:2]), ("test", *parts[2:])):
        write_csv(path / f"{name}.csv", X.reshape(len(X), -1), y)
    return path


def as_pictures(path, parts):
    write_pictures(path / "train", *parts[:2])
    write_pictures(path / "test", *parts[2:])
    return path


def in_order(examples):
    """Return the rows, each with its label, in the order of their values."""
    rows = np.column_stack([examples.images, examples.labels])
    return rows[np.lexsort(rows.T)]


@pytest.mark.parametrize("write", [as_arrays, as_npz, as_table, as_pictures])
def test_all_formats_give_the_same_examples(write, folder, parts, tmp_path):
    ours, right = datasets.load(write(tmp_path, parts)), datasets.load(folder)
    assert ours.n_classes == 4 and ours.class_names == () and ours.n_in == 6
    assert (ours.sha256 == right.sha256) == (write in (as_arrays, as_npz))
    assert ours.image_shape == ((6,) if write is as_table else (3, 2))
    if write is as_pictures:  # in an order of their own
        both = [
            datasets.Examples(*(np.concatenate([getattr(d.train, f), getattr(d.valid, f)])
            for f in ("images", "labels"))) for d in (ours, right)
        ]  # fmt: skip
        np.testing.assert_array_equal(in_order(both[0]), in_order(both[1]))
        np.testing.assert_array_equal(in_order(ours.test), in_order(right.test))
        return
    for part in ("train", "valid", "test"):
        for field in ("images", "labels"):
            found, expected = (getattr(getattr(d, part), field) for d in (ours, right))
            np.testing.assert_array_equal(found, expected)
            assert found.dtype == expected.dtype and found.flags.c_contiguous


def test_pictures_are_mixed_always_in_the_same_way(parts, tmp_path):
    """Otherwise the validation examples would be of the last class only."""
    write_pictures(tmp_path, *parts[:2])
    first, second = datasets.load(tmp_path), datasets.load(tmp_path)
    assert all(len(np.unique(part.labels)) > 2 for part in (first.train, first.valid, first.test))
    np.testing.assert_array_equal(first.train.images, second.train.images)


def test_without_a_test_set_the_last_examples_are_one(parts):
    X, y = parts[0], parts[1]
    data = datasets.load((X, y), validation_fraction=0.25, test_fraction=0.2)
    assert (len(data.train), len(data.valid), len(data.test)) == (36, 12, 12)
    stacked = np.concatenate([data.train.labels, data.valid.labels, data.test.labels])
    np.testing.assert_array_equal(stacked, y)
    np.testing.assert_array_equal(data.test.images, (X[48:].reshape(12, 6) / np.float32(255)))


@pytest.mark.parametrize("has_test", [False, True])
def test_split_at_random(parts, has_test):
    """The same for every call, without repetition; a test set that is there stays as it is."""
    order = np.argsort(parts[1], kind="stable")  # sorted by class
    given = (parts[0][order], parts[1][order], *(parts[2:] if has_test else ()))
    with pytest.raises(DataError, match="set split_at_random to true"):
        datasets.load(given, validation_fraction=0.5)
    once, again = (datasets.load(given, 0.5, split_at_random=True) for _ in range(2))
    np.testing.assert_array_equal(once.valid.images, again.valid.images)
    rest = () if has_test else (once.test,)
    together = [
        np.concatenate([getattr(part, field) for part in (once.train, once.valid, *rest)])
        for field in ("images", "labels")
    ]
    whole = datasets._examples(*given[:2])
    np.testing.assert_array_equal(in_order(datasets.Examples(*together)), in_order(whole))
    if has_test:
        np.testing.assert_array_equal(once.test.labels, parts[3])


def test_floats_are_used_as_they_are(parts, tmp_path):
    X = np.random.default_rng(0).normal(size=(60, 5))
    write_csv(tmp_path / "data.csv", X, parts[1])
    np.savez(tmp_path / "data.npz", X=X, y=parts[1])
    for source in ((X, parts[1]), tmp_path / "data.csv", tmp_path / "data.npz"):
        data = datasets.load(source)
        images = np.concatenate([data.train.images, data.valid.images, data.test.images])
        np.testing.assert_array_equal(images, X.astype("float32"))
        assert data.image_shape == (5,)


@pytest.mark.parametrize("kind", [str, object])
def test_words_are_numbered_in_their_order(parts, kind):
    words = WORDS[parts[1]].astype(kind)
    data = datasets.load((parts[0], words, parts[2], WORDS[parts[3]]))
    assert data.class_names == ("ace", "king", "queen", "ten") and data.n_classes == 4
    np.testing.assert_array_equal(data.test.labels, parts[3])


@pytest.mark.parametrize("labels", [str, float, np.int64, bool])
def test_numbers_of_any_type_are_labels(parts, labels):
    y = parts[1] % 2 if labels is bool else parts[1]
    data = datasets.load((parts[0], y.astype(labels)))
    assert data.class_names == ()
    np.testing.assert_array_equal(data.train.labels, y[: len(data.train)])


def test_colours_become_grey(tmp_path):
    grey = np.arange(6, dtype="uint8").reshape(2, 3) * 40
    write_pictures(tmp_path, [np.stack([grey] * 3, axis=-1), grey] * 4, ["b", "a"] * 4)
    data = datasets.load(tmp_path)
    np.testing.assert_allclose(data.train.images, [grey.ravel() / 255] * len(data.train), rtol=1e-6)
    assert data.class_names == ("a", "b")


@pytest.fixture(scope="module")
def run_on_arrays(tmp_path_factory):
    """A record of a run on arrays with words as labels, and the arrays."""
    rng = np.random.default_rng(0)
    images, labels = class_examples(rng, rng.random((4, 4, 4)) < 0.5, 120)
    experiment = policy.Settings(n_units=(6,), n_epochs=2, learning_rate=0.05)
    path = tmp_path_factory.mktemp("run") / "run.hdf5"
    data = (images, WORDS[labels])
    train(experiment, path, data=data, backend="python", show_progress=False)
    return path, data, experiment


def test_train_takes_arrays(run_on_arrays):
    path, data, experiment = run_on_arrays
    record = records.read(path)
    assert record.attributes["data"] == "arrays" and record.class_names == tuple(WORDS)
    assert record.dimensions == ((4, 4), 4)
    test = datasets.load_for(experiment, data).test
    errors = load_evaluation(record)(test).errors
    assert errors["sampled"] == record.best_attributes["test_error"]


def test_the_command_line_takes_a_table(run_on_arrays, tmp_path):
    """Sorted by class, so the split must be at random, and `evaluate` must repeat it."""
    _, (images, words), _ = run_on_arrays
    order = np.argsort(words)
    write_csv(tmp_path / "data.csv", images.reshape(120, -1)[order], words[order])
    out, common = tmp_path / "run.hdf5", ["--backend", "python", "--data", tmp_path / "data.csv"]
    settings = ["n_units=6", "split_at_random=true", "test_fraction=0.25"]
    options = [option for setting in settings for option in ("--set", setting)]
    command = ["train", "policy-500", *options, "--epochs", 1, "--out", out, *common, "--quiet"]
    result = CliRunner().invoke(main, [str(word) for word in command])
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(main, ["evaluate", str(out)])
    assert result.exit_code == 0 and result.stderr == "", result.output
    error = records.read(out).best_attributes["test_error"]
    (line,) = [x for x in result.stdout.splitlines() if x.startswith("test") and "sampled" in x]
    assert line.split()[1] == "30" and f"{error:.2%}" in line


# ---- What is refused, in one sentence that names the fix ----


def rejects(source, *fragments):
    with pytest.raises(DataError) as caught:
        datasets.load(source)
    message = str(caught.value)
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message, message


ONES, Y = np.ones((8, 3)), np.arange(8) % 2


@pytest.mark.parametrize(
    "source, fragments",
    [
        ((ONES,), ("a tuple of 1", "give (X, y), or")),
        ((ONES, Y, ONES), ("a tuple of 3", "give (X, y), or")),
        ((ONES[0], Y), ("train images have the shape (3,)", "(n, rows, columns)")),
        ((ONES[:0], Y[:0]), ("shape (0, 3)", "at least one example")),
        ((ONES, Y[:, None]), ("train labels have the shape (8, 1)", "one for each image")),
        ((ONES, Y[:7]), ("8 images but 7 labels", "the same examples")),
        ((ONES, Y, ONES[:, :2], Y), ("3 pixels but test images 2", "one size")),
        ((ONES * np.nan, Y), ("not finite", "replace")),
        ((ONES * 1e300, Y), ("not finite", "replace")),
        ((ONES.astype(int) * 256, Y), ("from 256 to 256", "0 to 255")),
        ((ONES.astype(int) * -1, Y), ("from -1 to -1", "0 to 255")),
        ((ONES.astype(str), Y), ("the type <U", "give numbers")),
        ((ONES, Y - 1), ("train labels must be whole numbers from 0", "or words")),
        ((ONES, Y + 0.5), ("train labels must be whole numbers from 0", "or words")),
        ((ONES, Y + 65_535), ("train labels must be", "65535")),
        ((ONES, (Y + 65_535).astype(str)), ("labels must be", "65535")),
        ((ONES, np.array([None, "a"] * 4)), ("train labels must be", "or words")),
        ((ONES, WORDS[Y], ONES, Y), ("numbers and words", "give one kind")),
        ((ONES, WORDS[Y], ONES, WORDS[Y + 1]), ("the test label queen", "correct the labels")),
    ],
    ids=lambda value: value[0] if isinstance(value[0], str) else "",
)
def test_arrays(source, fragments):
    rejects(source, *fragments)


@pytest.mark.parametrize("fraction", [0, 1, -0.5, float("nan")])
def test_test_fraction_out_of_range(fraction):
    with pytest.raises(DataError, match="test_fraction is .*: choose a fraction between 0 and 1"):
        datasets.load((ONES, Y), test_fraction=fraction)


@pytest.mark.parametrize(
    "contents, fragments",
    [
        ({"x": ONES}, ("lacks the train labels", "under the name train_labels or")),
        ({"x": ONES, "y": Y, "x_test": ONES}, ("lacks the test labels", "test_labels or y_test")),
        ({"x": np.array([{}] * 8), "y": Y}, ("cannot be read as an .npz file", "numpy.savez")),
        ({"x": ONES[:7], "y": Y}, ("7 images but 8 labels",)),
    ],
)
def test_npz(tmp_path, contents, fragments):
    np.savez(tmp_path / "data.npz", **contents)
    rejects(tmp_path / "data.npz", *fragments)


@pytest.mark.parametrize("damage", [lambda b: b[:200], lambda b: b"no zip", lambda b: b""])
def test_damaged_npz(tmp_path, damage):
    path = tmp_path / "data.npz"
    np.savez(path, x=ONES, y=Y)
    path.write_bytes(damage(path.read_bytes()))
    rejects(path, "cannot be read as an .npz file", "write it again")


@pytest.mark.parametrize(
    "text, fragments",
    [
        ("", ("one column label", "first line")),
        ("a,b\n1,2\n", ("one column label", "first line")),
        ("label\n1\n", ("one column label and others", "first line")),
        ("label,a,label\n1,2,3\n", ("one column label", "first line")),
        ("label,a\n", ("has no rows", "a line for each example")),
        ("label,a\nx,1\ny,one\n", ("cannot be read as a table", "numbers in all columns")),
        ("label,a\nx,1\ny,1,2\n", ("cannot be read as a table", "as many cells")),
        ("label,a,b\nx,1\ny,1\n", ("rows of 2 cells but 3 names", "as many of both")),
        ("label,a\nx,nan\ny,1\n", ("not finite", "replace")),
        (b"label,a\n\xff\xfe,1\n", ("cannot be read as a table", "UTF-8")),
    ],
)
def test_table(tmp_path, text, fragments):
    path = tmp_path / "data.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    rejects(path, *fragments)


def test_tables_with_other_columns(tmp_path):
    write_csv(tmp_path / "train.csv", ONES, Y)
    write_csv(tmp_path / "test.csv", ONES, Y, ["first", "label", "second", "third"])
    rejects(tmp_path, "test.csv has other columns than", "give both the same")
    (tmp_path / "test.csv").unlink()
    rejects(tmp_path, "test.csv cannot be read as a table (No such file")


def test_pictures(tmp_path):
    image = np.zeros((2, 3), "uint8")
    write_pictures(tmp_path / "sizes", [image, image.T], ["a", "b"])
    rejects(tmp_path / "sizes", "3 x 2 pixels but", "2 x 3", "bring all images to one size")
    write_pictures(tmp_path / "deep", [image.astype("uint16")], ["a"])
    rejects(tmp_path / "deep", "more than 8 bits a pixel", "save it with 8 bits")
    write_pictures(tmp_path / "empty", [image], ["a"])
    (tmp_path / "empty" / "b").mkdir()
    rejects(tmp_path / "empty", "b has no PNG file", "or remove it")
    write_pictures(tmp_path / "damaged", [image], ["a"])
    path = tmp_path / "damaged" / "a" / "000.png"
    path.write_bytes(path.read_bytes()[:40])
    rejects(tmp_path / "damaged", "000.png is not an intact PNG file", "save it again")
    for name in ("train", "test"):
        (tmp_path / "sets" / name).mkdir(parents=True)
    rejects(tmp_path / "sets", "train has no folder of a class", "make one for each")
