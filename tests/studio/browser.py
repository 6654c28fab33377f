"""Where a Chromium stands that the studio is driven with; as a program, it ends with 0 where there is one."""

import os
import shutil
import sys
from pathlib import Path

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PLACES = (
    "chromium_headless_shell-*/*/headless_shell",
    "chromium_headless_shell-*/*/chrome-headless-shell",
    "chromium-*/*/chrome",
    "chromium-*/*/Chromium.app/Contents/MacOS/Chromium",
)


def find_browser() -> str | None:
    """A browser: $UNNOISE_BROWSER, one on the PATH, or one that Playwright has fetched; None where there is none."""
    if own := os.environ.get("UNNOISE_BROWSER"):
        return own
    for name in NAMES:
        if found := shutil.which(name):
            return found
    caches = [
        os.environ.get("PLAYWRIGHT_BROWSERS_PATH"),
        Path.home() / ".cache/ms-playwright",
        Path.home() / "Library/Caches/ms-playwright",
    ]
    for cache in caches:
        for place in PLACES if cache else ():
            if found := next(iter(sorted(Path(cache).glob(place), reverse=True)), None):
                return str(found)
    return None


if __name__ == "__main__":
    sys.exit(find_browser() is None)
