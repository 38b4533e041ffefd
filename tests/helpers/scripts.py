"""The scripts of experiments/, run as a user runs them, each in its own process."""

import os
import re
import subprocess
import sys
from pathlib import Path

from compilations import is_one_operation

ROOT = Path(__file__).parents[2]
EXPERIMENTS = ROOT / "experiments"
REPRODUCTIONS = EXPERIMENTS / "reproductions"
ENVIRONMENT = {
    **os.environ,
    "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".pytest_cache" / "compilations"),
}
_COMPILATION = re.compile(r"^(?:Compiling|Finished) .*\n", re.MULTILINE)  # of JAX_LOG_COMPILES
_PROGRAM = re.compile(r"^Compiling jit\(([^)]*)\) ", re.MULTILINE)
_IMPORT = re.compile(r"^import time: .*\| *(\S+)\n", re.MULTILINE)


def run(
    script: str, *arguments: str, timeout: float = 300, **environment: str
) -> subprocess.CompletedProcess[str]:
    """A script by its path below experiments/, with more environment variables."""
    return subprocess.run(
        [sys.executable, str(EXPERIMENTS / script), *arguments],
        capture_output=True,
        text=True,
        env={**ENVIRONMENT, **environment},
        timeout=timeout,
        check=False,
    )


def run_with_imports(
    script: str, *arguments: str, **environment: str
) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """A run, and the names of the modules that it has imported."""
    done = run(script, *arguments, PYTHONPROFILEIMPORTTIME="1", **environment)
    modules = set(_IMPORT.findall(done.stderr))
    done.stderr = _IMPORT.sub("", done.stderr)
    return done, modules


def refused(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A run whose arguments hold a mistake: it ends with code 2 and without a traceback, before
    any program is compiled.
    """
    done = run(script, *arguments, JAX_LOG_COMPILES="1")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert programs(done.stderr) == []
    done.stderr = _COMPILATION.sub("", done.stderr)
    return done


def programs(stderr: str) -> list[str]:
    """The names of the programs, single operations left out, that a process with
    JAX_LOG_COMPILES=1 has compiled.
    """
    return [name for name in _PROGRAM.findall(stderr) if not is_one_operation(name)]


def refused_without_jax(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The same of a mistake that is found before jax is imported, which takes seconds."""
    done, modules = run_with_imports(script, *arguments)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert "argparse" in modules or "tyro" in modules
    assert "jax" not in modules
    return done
