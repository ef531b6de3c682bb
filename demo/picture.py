"""A picture of a page, if a browser is there to make it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
SIZE = "1280,1600"


def picture_of(page: str | Path, target: Path) -> Path | None:
    """The top of a page as PNG; None where there is no browser, or it makes none within a minute."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        return None
    # Without its sandbox: root may not use it, and the page is our own and runs nothing.
    arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={SIZE}"]
    try:
        subprocess.run(
            [browser, *arguments, f"--screenshot={target}", Path(page).resolve().as_uri()],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return target if target.is_file() else None
