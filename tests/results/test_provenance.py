"""The provenance of a run: complete, from the right checkout, and without the machine's paths."""

import importlib.metadata
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import llvmlite.binding
import numpy as np
import pytest
import threadpoolctl

from reinforce_dropout.native.llvm import vectors
from reinforce_dropout.results import provenance, records

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def git(folder, *arguments):
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, env=environment, check=True, text=True,
        capture_output=True,
    )  # fmt: skip
    return done.stdout.strip()


@pytest.fixture
def package(tmp_path):
    """Return a package folder in a checkout with one commit, carrying a tag as a release does."""
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "__init__.py").write_text("1\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message=first")
    git(tmp_path, "tag", "-a", "v1", "-m", "v1")
    return folder


def test_command_can_be_typed_again_and_holds_no_folder_of_the_program():
    command = provenance.collect(["/opt/venv/bin/program", "train", "a b", "--out=x/é.hdf5"])[
        "command"
    ]
    assert shlex.split(command) == ["program", "train", "a b", "--out=x/é.hdf5"]


def test_command_that_is_not_utf8_can_be_recorded():
    command = provenance.collect(["program", os.fsdecode(b"caf\xe9")])["command"]
    assert command == "program 'caf\N{REPLACEMENT CHARACTER}'"


def test_nothing_names_a_path_of_this_machine():
    collected = repr(provenance.collect(["/opt/venv/bin/program"]))
    assert str(Path(provenance.__file__).parent) not in collected
    assert "/opt" not in collected and os.path.expanduser("~") + os.sep not in collected


def test_versions_are_those_of_the_installed_packages():
    versions = provenance.collect(["program"])["versions"]
    names = "python reinforce_dropout pytensor numpy scipy numba llvmlite jax h5py".split()
    if importlib.util.find_spec("jax") is None:
        names.remove("jax")
    assert list(versions) == names
    assert versions["numpy"] == np.__version__


def test_a_package_that_is_not_installed_is_left_out(monkeypatch):
    def version(name):
        if name == "numba":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(importlib.metadata, "version", version)
    versions = provenance.collect(["program"])["versions"]
    assert "numba" not in versions and versions["scipy"] == "1.0"


def test_n_threads_follows_the_pools_and_the_affinity(monkeypatch):
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        assert provenance.collect(["program"])["n_threads"] == 1
    pools = [{"user_api": "blas", "num_threads": n} for n in (3, 8)]
    pools.append({"user_api": "openmp", "num_threads": 64})
    monkeypatch.setattr(threadpoolctl, "threadpool_info", lambda: pools)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(99)), raising=False)
    assert provenance.collect(["program"])["n_threads"] == 8
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    assert provenance.collect(["program"])["n_threads"] == 2


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [("processor\t: 0\nmodel name\t: A B @ 2: C\n", "A B @ 2: C"), ("BogoMIPS: 1\n", "riscv64")],
)
def test_host_cpu_with_and_without_a_model_name(monkeypatch, cpuinfo, expected):
    read_text = Path.read_text

    def read(path, *arguments, **settings):
        is_cpuinfo = path == Path("/proc/cpuinfo")
        return cpuinfo if is_cpuinfo else read_text(path, *arguments, **settings)

    monkeypatch.setattr(Path, "read_text", read)
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert provenance.collect(["program"])["host_cpu"] == expected


def test_now_is_utc_to_the_second():
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", provenance.now())


@needs_git
def test_git_commit_is_dirty_only_by_tracked_files(package):
    commit = git(package, "rev-parse", "HEAD")
    assert provenance.git_commit(package) == commit
    (package.parent / "untracked").touch()
    assert provenance.git_commit(package) == commit
    (package / "__init__.py").write_text("2\n")
    assert provenance.git_commit(package) == f"{commit}-dirty"


@needs_git
def test_git_commit_ignores_the_environment_of_a_hook(package, monkeypatch):
    monkeypatch.setenv("GIT_DIR", str(package / "nowhere"))
    assert provenance.git_commit(package) == git(package, "rev-parse", "HEAD")


@needs_git
def test_git_commit_of_somebody_elses_checkout_is_not_ours(package):
    installed = package.parent / "venv" / "package"
    shutil.copytree(package, installed)
    assert provenance.git_commit(installed) == ""


def test_git_commit_is_empty_outside_a_checkout_and_without_git(tmp_path, monkeypatch):
    (tmp_path / "__init__.py").touch()
    assert provenance.git_commit(tmp_path) == ""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.git_commit(tmp_path) == ""


def test_collected_attributes_can_be_recorded(tmp_path):
    missing = dict.fromkeys("status stopped_by data data_sha256 backend started ended".split(), "")
    attributes = provenance.collect(["program"]) | missing
    attributes |= {"experiment": {}, "dimensions": {}, "seed": 0}
    names = ("train_nll", "valid_error", "test_error", "epoch_seconds")
    curves = dict.fromkeys(names, np.empty(0))
    records.write(tmp_path / "run.hdf5", records.Record(attributes, curves, {}, {}))
    assert records.read(tmp_path / "run.hdf5").attributes == attributes


def test_what_decides_the_bits_is_recorded(monkeypatch):
    for name in [name for name in os.environ if name.startswith(provenance._VARIABLES)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NUMBA_CPU_NAME", "generic")
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/somewhere")
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell Zen")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    monkeypatch.setenv("PYTENSOR_FLAGS", "cxx=,base_compiledir=/somewhere,floatX=float32")
    facts = provenance.collect(["program"])
    assert shlex.split(facts["environment"]) == [
        "NUMBA_CPU_NAME=generic",
        "OPENBLAS_CORETYPE=Haswell Zen",
        "PYTENSOR_FLAGS=cxx=,floatX=float32",
    ]
    assert facts["vector_bytes"] == vectors.VECTOR_BYTES
    assert facts["threading_layer"] in ("tbb", "omp", "workqueue")
    name, *features = facts["cpu_features"].split()
    assert name == llvmlite.binding.get_host_cpu_name()
    assert "avx512f" in features or vectors.VECTOR_BYTES < 64


def test_family_and_model_are_told_apart_under_one_name(monkeypatch):
    cpuinfo = "processor\t: 0\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: A\nstepping\t: 1\n"
    read_text = Path.read_text

    def read(path, *arguments, **settings):
        is_cpuinfo = path == Path("/proc/cpuinfo")
        return cpuinfo if is_cpuinfo else read_text(path, *arguments, **settings)

    monkeypatch.setattr(Path, "read_text", read)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    facts = provenance.collect(["program"])
    assert facts["processor"] == "x86_64, cpu family 25, model 17, stepping 1"


def test_older_records_lack_some_facts_which_count_as_equal(caplog):
    now = provenance.collect(["program"])
    old = {name: now[name] for name in ("command", "git_commit", "host_cpu", "versions")}
    (entry,) = provenance.resume(old, now)["resumed"]
    assert entry.keys() == {"time"} and not caplog.records
    old["versions"] = old["versions"] | {"numpy": "1.0"}
    resumed = provenance.resume(old | {"resumed": [entry]}, now)["resumed"]
    assert resumed[0] == entry and resumed[1]["versions"] == now["versions"]
    (told,) = (r.getMessage() for r in caplog.records)
    assert "although versions differ" in told
