"""The scripts of experiments/reproductions, run as a user runs them."""

import os
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "experiments" / "reproductions"
ENVIRONMENT = {
    **os.environ,
    "JAX_COMPILATION_CACHE_DIR": str(FOLDER.parents[1] / ".pytest_cache" / "compilations"),
}


def run(script: str, *arguments: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / f"{script}.py"), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env=ENVIRONMENT, timeout=timeout, check=False
    )


def refused(
    script: str, arguments: tuple[str, ...], tmp_path: Path
) -> subprocess.CompletedProcess[str]:
    """A run whose arguments hold a mistake: it ends with code 2, at once and without a traceback.

    `{file}` in an argument is a file where a folder is expected.
    """
    (tmp_path / "file").write_text("")
    started = time.monotonic()
    done = run(script, *(word.format(file=tmp_path / "file") for word in arguments))
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert time.monotonic() - started < 5.0
    return done
