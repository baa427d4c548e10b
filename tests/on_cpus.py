"""Run the tests marked `cpu` with code for other processors, each where this machine can run it.

If this machine lacks instructions of a target, the target is left out and named. Each target has
empty caches of its own, and two run at once.
"""

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import llvmlite.binding

_AVX2 = {"avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "popcnt"}
_AVX512 = _AVX2 | {"adx", "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
#: What the code for each may contain, in LLVM's words; code for the first runs anywhere.
TARGETS = {
    "generic": set(),
    "haswell": _AVX2,
    "skylake-avx512": _AVX512,
    "znver4": _AVX512
    | {"avx512bf16", "avx512bitalg", "avx512ifma", "avx512vbmi", "avx512vbmi2", "avx512vnni"}
    | {"avx512vpopcntdq", "gfni", "sse4a", "vaes", "vpclmulqdq"},
}


def lacking(target):
    """Return the instructions of a target that this machine lacks, sorted."""
    host = llvmlite.binding.get_host_cpu_features()
    return sorted(name for name in TARGETS[target] if not host.get(name))


def environment(target, folder):
    """Return the environment in which Numba compiles for a target, with caches in a folder."""
    flags = [os.environ.get("PYTENSOR_FLAGS"), f"base_compiledir={folder}/pytensor"]
    return os.environ | {
        "NUMBA_CPU_NAME": target,
        "NUMBA_CPU_FEATURES": "",  # otherwise Numba adds this machine's features
        "NUMBA_CACHE_DIR": f"{folder}/numba",
        "PYTENSOR_FLAGS": ",".join(filter(None, flags)),
        "OPENBLAS_NUM_THREADS": "1",
    }


def run(target):
    """Run the tests for a target; return whether they pass, and what they print."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pytest", "-m", "cpu", "-p", "no:cacheprovider"]
        done = subprocess.run(
            command,
            cwd=Path(__file__).parents[1],
            env=environment(target, folder),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    return done.returncode == 0, done.stdout


def main():
    """Run all targets; return the exit status."""
    able = []
    for target in TARGETS:
        if missing := lacking(target):
            print(f"{target}: left out, as this machine lacks {', '.join(missing)}", flush=True)
        else:
            able.append(target)
    passed = True
    with ThreadPoolExecutor(2) as pool:
        for target, (passes, printed) in zip(able, pool.map(run, able), strict=True):
            summary = printed.rstrip().splitlines()[-1] if passes else f"FAILED\n{printed}"
            print(f"{target}: {summary}", flush=True)
            passed &= passes
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
