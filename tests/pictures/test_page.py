import base64
import io
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from unnoise.errors import BadOption, ShapeError
from unnoise.pictures.animation import save_animation
from unnoise.pictures.page import Page, Picture

VOID = {"meta", "img", "br", "link", "hr"}
RED = Image.new("RGB", (30, 20), (255, 0, 0))


class Reader(HTMLParser):
    """Checks that elements nest, and keeps what they hold."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append((self.open[-1] if self.open else "", data))

    def within(self, tag):
        return [words for at, words in self.words if at == tag]

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def animation():
    stream = io.BytesIO()
    save_animation([RED, Image.new("RGB", (30, 20))], stream, format="webp")
    return stream.getvalue()


def full_page():
    page = Page("Two moons & <more>", "A **report**")
    page.heading("Samples")
    page.text("One *line* with `a < b`\nand its end.\n\n- first\n- second\n\nLast <script>alert(1)</script> one.")
    page.picture(RED, 'A "red" **flag**', width=300, pixelated=True)
    page.columns([Picture(RED, "left", alt="red"), Picture(animation(), "right")])
    page.table(["sampler", "error"], [["Heun <b>", "0.01 ± 0.002"], ["DDIM", 2]], "Lower is better")
    page.code("if a < b & c:\n    pass")
    return page


def test_the_page_parses_and_holds_what_was_put_in():
    reader = Reader(full_page().html())
    assert reader.within("title") == ["Two moons & <more>"]
    assert reader.within("h1") == ["Two moons & <more>"]
    assert reader.within("h2") == ["Samples"]
    assert reader.within("li") == ["first", "second"]
    assert reader.within("em") == ["line"]
    assert "a < b" in reader.within("code")
    assert "if a < b & c:\n    pass" in reader.within("code")
    assert "Heun <b>" in reader.within("td")
    assert [attrs.get("class") for attrs in reader.all("td")] == [None, "right"] * 2


def test_nothing_that_was_put_in_becomes_an_element():
    evil = '"><script>alert(1)</script><img src=x onerror=y>'
    page = Page(evil, evil)
    page.heading(evil)
    page.heading(evil, 3)
    page.text(f"{evil}\n\n- {evil}\n\n**{evil}** `{evil}`")
    page.picture(RED, evil, evil)
    page.picture(RED, evil)
    page.table([evil], [[evil]], evil)
    page.code(evil)
    text = page.html()
    reader = Reader(text)
    assert "<script" not in text
    assert reader.all("script") == []
    assert len(reader.all("img")) == 2
    assert all(set(attrs) == {"src", "alt", "width", "height"} for attrs in reader.all("img"))
    assert reader.all("img")[0]["alt"] == evil


def test_the_page_asks_for_nothing_outside_itself():
    text = full_page().html()
    reader = Reader(text)
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in reader.tags}
    outer = re.compile(r"https?:|//")
    assert not outer.search(re.sub(r"base64,[A-Za-z0-9+/=]+", "", text))
    for _, attrs in reader.tags:
        assert attrs.get("src", "data:").startswith("data:")
        assert "href" not in attrs
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text


def test_every_picture_decodes_and_keeps_its_kind_and_size():
    images = Reader(full_page().html()).all("img")
    kinds = []
    for attrs in images:
        head, data = attrs["src"].split(",", 1)
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as picture:
            picture.load()
            assert head == f"data:{picture.get_format_mimetype()};base64"
            assert (attrs["width"], attrs["height"]) == (str(picture.width), str(picture.height)) == ("30", "20")
            kinds.append((picture.format, getattr(picture, "n_frames", 1)))
    assert kinds == [("PNG", 1), ("PNG", 1), ("WEBP", 2)]
    assert [attrs.get("class") for attrs in images] == ["pixelated", None, None]
    assert [attrs["alt"] for attrs in images] == ['A "red" flag', "red", "right"]


def test_the_page_is_light_and_dark_and_fits_a_narrow_screen():
    text = full_page().html()
    assert "prefers-color-scheme: dark" in text
    assert "width=device-width" in text
    assert "max-width: 100%" in text
    assert "image-rendering: pixelated" in text
    assert '--width:300px"' in text


def test_stars_and_underscores_that_are_no_marks_stay():
    page = Page("x")
    page.text("2 * 3 * 4, a**b, snake_case_name, *")
    assert "2 * 3 * 4, a**b, snake_case_name, *" in Reader(page.html()).within("p")


def test_saving_replaces_the_page_at_once(tmp_path):
    path = tmp_path / "report" / "index.html"
    Page("old").save(path)
    assert full_page().save(path) == path
    assert path.read_text(encoding="utf-8") == full_page().html()
    assert [each.name for each in path.parent.iterdir()] == ["index.html"]


def test_what_no_browser_shows_is_refused():
    page = Page("x")
    with pytest.raises(BadOption, match="unknown bytes"):
        page.picture(b"no picture at all")
    stream = io.BytesIO()
    RED.save(stream, "BMP")
    with pytest.raises(BadOption, match="PNG, GIF, WEBP, JPEG, got BMP"):
        page.picture(stream.getvalue())
    with pytest.raises(BadOption, match="width"):
        page.picture(RED, width=0)
    with pytest.raises(ShapeError, match="expected 2 cells in every row, got 1 in row 0"):
        page.table(["a", "b"], [["a"]])
    with pytest.raises(BadOption, match="level"):
        page.heading("x", 1)
