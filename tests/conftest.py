"""What tests share: small drawn data, and an environment in which nothing leaves the machine."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.wandb_server import WandbServer

ROOT = Path(__file__).parent.parent
REAL_SIGNS = ROOT / "data" / "GTSRB"
REAL_CHESTS = ROOT / "data" / "JSRT"

# A shell's background jobs ignore Ctrl-C, and so would the processes that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also if the tests run under nohup
NAMES = ("SIGTERM", "SIGHUP", "SIGALRM")
STOPPING = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
# Before anything imports torch: equal numbers as in subprocesses, and no fight over two cores.
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """Undo what a run in this process did to SIGTERM: processes inherit it where it is ignored."""
    before = {number: signal.getsignal(number) for number in STOPPING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(scope="session")
def signs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw 43 classes x 3 tracks x 2 frames and 86 test images in the official layout."""
    from lib.data import synthetic_signs

    root = tmp_path_factory.mktemp("data") / "signs"
    synthetic_signs.draw_dataset(root, tracks=3, frames=2, test_images=86, seed=0)
    return root


@pytest.fixture(scope="session")
def chests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw 20 chests with lung masks in the layout of JSRT and SCR."""
    from lib.data import synthetic_chests

    root = tmp_path_factory.mktemp("data") / "chests"
    synthetic_chests.draw_dataset(root, images=20, seed=0)
    return root


@pytest.fixture
def real_chests() -> Path:
    """Give the real radiographs' folder; skip where it is absent."""
    if not (REAL_CHESTS / "masks").is_dir():
        pytest.skip(f"the real radiographs are not in {REAL_CHESTS}")
    return REAL_CHESTS


@pytest.fixture
def real_signs() -> Path:
    """Give the real data's folder; skip where it is absent."""
    if not (REAL_SIGNS / "Final_Training").is_dir():
        pytest.skip(f"the real traffic signs are not in {REAL_SIGNS} (`make data`)")
    return REAL_SIGNS


def offline_environment(folder: Path) -> dict[str, str]:
    """Return an environment for real scripts: offline W&B in ``folder``, one thread."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    return kept | {
        "HOME": str(folder),
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_DIR": str(folder / "runs"),
        "WANDB_CONFIG_DIR": str(folder / "config"),
        "WANDB_CACHE_DIR": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": str(ROOT),  # for the stub script, which is not in the project's folder
    }


@pytest.fixture
def offline(tmp_path: Path) -> dict[str, str]:
    """Give an environment for real scripts, whose files go to tmp_path."""
    return offline_environment(tmp_path)


@pytest.fixture
def server() -> Iterator[WandbServer]:
    """Give a stand-in for the W&B server."""
    with WandbServer() as running:
        yield running


@pytest.fixture
def online(offline: dict[str, str], server: WandbServer) -> dict[str, str]:
    """Give an environment in which the real client and CLI find the stand-in and nothing else."""
    kept = {k: v for k, v in offline.items() if k not in ("WANDB_MODE", "WANDB_SILENT")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return kept | server.environment() | {"PATH": path}


def command(*words: str | Path) -> list[str]:
    """Return the command line of a Python script or module with this interpreter."""
    return [sys.executable, *map(str, words)]


def call(
    *words: str | Path, env: dict[str, str] | None = None, timeout: float = 300
) -> subprocess.CompletedProcess:
    """Run a script or module from the project's folder to its end; output is text."""
    return subprocess.run(
        command(*words),
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def has_booktabs() -> bool:
    """Say whether LaTeX and its package booktabs are installed."""
    if shutil.which("pdflatex") is None or shutil.which("kpsewhich") is None:
        return False
    found = subprocess.run(["kpsewhich", "booktabs.sty"], capture_output=True, check=False)
    return found.returncode == 0
