"""Pages as a person sees them: in headless Chromium."""

import pathlib
import shutil
import subprocess

import numpy as np

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def browse(path: pathlib.Path, *options: str) -> str:
    """What headless Chromium prints of a page."""
    assert BROWSER is not None
    quiet = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
             "--disable-background-networking", "--disable-component-update", "--disable-sync",
             f"--user-data-dir={path.parent / 'profile'}")
    done = subprocess.run([BROWSER, *quiet, *options, path.as_uri()], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def screenshot(path: pathlib.Path, width: int, height: int) -> np.ndarray:
    """(height, width, 3): what a window of this size shows of a page; it is kept beside the page as `seen.png`."""
    from matplotlib.image import imread

    browse(path, f"--screenshot={path.with_name('seen.png')}", f"--window-size={width},{height}")
    return imread(path.with_name("seen.png"))[..., :3]
