"""Makes the pictures of docs/studio.md: the studio as a browser shows it, with two models that it trains first.

python docs/make_studio_pictures.py [--runs runs]

It needs what the tests of the studio need (`make setup`): Playwright, and a Chromium. The models are trained with the recipes
`two-moons-labels` and `digits` where they do not stand in the folder yet, which takes a few minutes.
"""

import argparse
import io
import sys
import tempfile
import threading
import time
from pathlib import Path

import uvicorn
from PIL import Image

import unnoise
from unnoise.engine.engine import Engine
from unnoise.engine.results import Results
from unnoise.engine.shelf import Shelf
from unnoise.serving.app import create
from unnoise.serving.running import listening
from unnoise.studio.pages import page_routes, room_routes

sys.path.insert(0, str(Path(__file__).parent.parent / "tests/studio"))
from browser import find_browser

PICTURES = Path(__file__).parent / "pictures"
MOST_BYTES = 140_000
MODELS = ("two-moons-labels", "digits")
DESKTOP, PHONE = {"width": 1240, "height": 860}, {"width": 390, "height": 844}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--only", default="noise,denoise,steer,train,gallery,models,phone,dark")
    asked = parser.parse_args()
    for name in MODELS:
        if not (asked.runs / name / "model").is_dir():
            unnoise.train(name, asked.runs / name)
    with tempfile.TemporaryDirectory() as kept:
        engine = Engine(Shelf({name: asked.runs / name for name in MODELS}), Results(kept))
        app = create(
            engine,
            routers=[room_routes(engine, runs=asked.runs, models=Path(kept) / "models")],
            open_routers=[page_routes()],
        )
        with listening("127.0.0.1", 0) as sock:
            server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
            threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True).start()
            while not server.started:
                time.sleep(0.05)
            photograph(f"http://127.0.0.1:{sock.getsockname()[1]}", asked.only.split(","))
            server.should_exit = True
            time.sleep(1)


def photograph(url: str, only: list[str]) -> None:
    """Visits the rooms, does what a person would do, and keeps what is to be seen."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"])

        def visit(room: str, size: dict = DESKTOP, scheme: str = "light", scale: float = 1.5):
            page = browser.new_context(viewport=size, color_scheme=scheme, device_scale_factor=scale).new_page()
            page.set_default_timeout(600_000)
            page.goto(f"{url}/#/{room}")
            page.wait_for_selector(f"[data-room={room}].room")
            page.wait_for_load_state("networkidle")
            return page

        def keep(page, name: str, height: int | None = None) -> None:
            page.evaluate("() => document.activeElement?.blur()")
            page.wait_for_timeout(7000 if page.locator("#status p").count() else 600)  # until nothing is said any more
            size = page.viewport_size
            clip = {"x": 0, "y": 0, "width": size["width"], "height": height or size["height"]}
            shot = page.screenshot(full_page=True, clip=clip)
            with Image.open(io.BytesIO(shot)) as image:
                image.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(
                    PICTURES / f"studio-{name}.png", optimize=True
                )
            print(PICTURES / f"studio-{name}.png")
            page.context.close()

        for name in only:
            STORIES[name](visit, keep)
        browser.close()


def write(image: Image.Image, path: Path) -> None:
    """Writes a picture, in fewer colours, and smaller where it would be more than a document should hold."""
    small = image.quantize(128, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
    if path.stat().st_size > MOST_BYTES:
        write(image.resize((round(0.85 * image.width), round(0.85 * image.height)), Image.Resampling.LANCZOS), path)


def noise(visit, keep) -> None:
    keep(visit("noise"), "noise", 1130)


def phone(visit, keep) -> None:
    keep(visit("noise", PHONE), "phone", 1150)


def denoise(visit, keep) -> None:
    page = visit("denoise", scale=1)
    page.get_by_label("Model").select_option("two-moons-labels")
    page.wait_for_load_state("networkidle")
    page.get_by_text("exact", exact=True).click()
    page.get_by_label("The score as arrows").check()
    _generate(page)
    _slide(page, "#step", 12)
    page.wait_for_function("() => document.querySelector('[data-field=exact]')?.numbers")
    keep(page, "denoise", 1860)


def dark(visit, keep) -> None:
    page = visit("denoise", scheme="dark")
    page.get_by_label("Model").select_option("digits")
    page.wait_for_load_state("networkidle")
    page.get_by_label("Label").select_option("3")
    _generate(page)
    _slide(page, "#step", 14)
    keep(page, "dark", 900)


def steer(visit, keep) -> None:
    page = visit("steer")
    page.get_by_label("Model").select_option("digits")
    page.wait_for_load_state("networkidle")
    page.get_by_role("button", name="Generate").click()
    page.wait_for_function(
        "() => !document.querySelector('[data-number=diversity]').innerText.includes('not measured')"
    )
    page.get_by_role("button", name="Measure over guidance").click()
    page.wait_for_function("() => document.querySelectorAll('.curves.three path').length === 3")
    page.wait_for_selector(".work", state="hidden")
    page.get_by_role("button", name="From here").nth(0).click()
    page.get_by_role("button", name="To here").nth(1).click()
    page.wait_for_selector(".strip li:nth-child(7)")
    keep(page, "steer", 1750)


def train(visit, keep) -> None:
    page = visit("train")
    page.get_by_role("button", name="digits").click()
    page.wait_for_selector("img.drawn[src*='digits']")
    keep(page, "train", 1180)


def gallery(visit, keep) -> None:
    page = visit("gallery")
    page.wait_for_function("() => [...document.images].every((each) => each.complete)")
    keep(page, "gallery", 900)


def models(visit, keep) -> None:
    keep(visit("models"), "models", 900)


def _generate(page) -> None:
    page.get_by_role("button", name="Generate").click()
    page.wait_for_selector("#step:enabled")


def _slide(page, selector: str, value: int) -> None:
    page.locator(selector).evaluate(
        "(range, value) => { range.value = value; range.dispatchEvent(new Event('input', { bubbles: true })); }", value
    )


STORIES = {
    "noise": noise, "phone": phone, "denoise": denoise, "dark": dark, "steer": steer, "train": train, "gallery": gallery,
    "models": models,
}  # fmt: skip

if __name__ == "__main__":
    main()
