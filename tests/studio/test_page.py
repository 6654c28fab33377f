"""The files of the page: small, whole, and theirs alone."""

import gzip
import re

from unnoise.studio.pages import FOLDER, page_files

MOST = 300_000


def test_the_page_is_smaller_than_300_kb_compressed():
    sizes = {name: len(file.packed or file.content) for name, file in page_files().items()}
    assert sum(sizes.values()) <= MOST, sizes
    assert sum(len(gzip.compress(path.read_bytes(), 9)) for path in FOLDER.rglob("*") if path.is_file()) <= MOST


def test_no_file_of_the_page_names_another_machine():
    for name, file in page_files().items():
        if name.endswith((".html", ".css", ".js")):
            assert not re.search(rb"https?://(?!www\.w3\.org/)", file.content), name


def test_every_file_that_is_asked_for_is_there():
    files = page_files()
    for name, file in files.items():
        folder = name.rpartition("/")[0]
        text = file.content.decode() if name.endswith((".html", ".css", ".js")) else ""
        found = re.findall(r'(?:from |import\()"(\.{1,2}/[^"]+)"|(?:href|src)="([^"#:]+)"|url\(([^)]+)\)', text)
        for path in (next(filter(None, each)) for each in found):
            parts = [*folder.split("/"), *path.split("/")] if folder else path.split("/")
            resolved = []
            for part in parts:
                if part == "..":
                    resolved.pop()
                elif part not in ("", "."):
                    resolved.append(part)
            if "${" not in path and path not in ("/",):
                assert "/".join(resolved) in files, (name, path)


def test_the_page_may_load_nothing_but_itself(studio):
    import urllib.request

    with urllib.request.urlopen(studio.url) as answer:
        policy, tag = answer.headers["content-security-policy"], answer.headers["etag"]
        assert b"<title>unnoise studio</title>" in answer.read()
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert studio.ask("GET", "", headers={"if-none-match": tag})[0] == 304


def test_what_is_compressed_is_the_file_itself(studio):
    import urllib.request

    asked = urllib.request.Request(f"{studio.url}/app.js", headers={"accept-encoding": "gzip"})
    with urllib.request.urlopen(asked) as answer:
        assert answer.headers["content-encoding"] == "gzip"
        assert gzip.decompress(answer.read()) == (FOLDER / "app.js").read_bytes()


def test_path_tricks_lead_nowhere(studio):
    tricks = [
        "..%2fpages.py", "../pages.py", "rooms/%2e%2e/%2e%2e/pages.py", "%2fetc%2fpasswd", "//etc/passwd",
        "fonts/LICENSE-serif", "api/train/runs/..%2f..%2fetc/pictures/passwd", "api/gallery/..%2f..%2f/samples.png",
        "api/jobs/..%2fwaiting/steps", "api/train/runs/moons/pictures/..%2frecipe.yaml",
    ]  # fmt: skip
    for trick in tricks:
        status, answer = studio.ask("GET", trick)
        assert status in (400, 404), (trick, status, answer)
