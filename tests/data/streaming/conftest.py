"""What the tests of shards share: a folder of pictures, and the same pictures in shards of every kind."""

import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

NUMBER, SIDE = 60, 8
WORDS = ("cat", "dog", "eel")


def add(tar, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


class Pictures:
    """60 pictures of 8 x 8 random colours with labels and captions: in a folder, and as rows of shards in its order."""

    def __init__(self, folder, seed=0):
        rng = np.random.default_rng(seed)
        self.folder = folder
        self.pixels = rng.integers(0, 256, (NUMBER, SIDE, SIDE, 3), dtype=np.uint8)
        self.labels = [i * 3 // NUMBER for i in range(NUMBER)]
        self.texts = [f"picture {i}" for i in range(NUMBER)]
        self.encoded = []
        for i, (pixels, label) in enumerate(zip(self.pixels, self.labels, strict=True)):
            stream = io.BytesIO()
            Image.fromarray(pixels).save(stream, "PNG")
            self.encoded.append(stream.getvalue())
            path = folder / WORDS[label] / f"{i:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(stream.getvalue())
            path.with_suffix(".txt").write_text(self.texts[i])

    add = staticmethod(add)

    def tar(self, folder, each=13, change=lambda i, encoded: encoded):
        """Tar shards with a label and a caption for each picture."""
        folder.mkdir(exist_ok=True)
        for shard, first in enumerate(range(0, NUMBER, each)):
            with tarfile.open(folder / f"{shard:03}.tar", "w") as tar:
                for i in range(first, min(first + each, NUMBER)):
                    add(tar, f"{i:03}.png", change(i, self.encoded[i]))
                    if i % 2:
                        about = {"label": WORDS[self.labels[i]], "caption": self.texts[i]}
                        add(tar, f"{i:03}.json", json.dumps(about).encode())
                    else:
                        add(tar, f"{i:03}.cls", WORDS[self.labels[i]].encode())
                        add(tar, f"{i:03}.txt", self.texts[i].encode())
        return folder

    def parquet(self, folder, each=13):
        """Parquet shards in the convention of Hugging Face."""
        folder.mkdir(exist_ok=True)
        features = {"label": {"_type": "ClassLabel", "names": list(WORDS)}}
        about = {"huggingface": json.dumps({"info": {"features": features}})}
        for shard, first in enumerate(range(0, NUMBER, each)):
            part = slice(first, first + each)
            images = [{"bytes": encoded, "path": None} for encoded in self.encoded[part]]
            columns = {"image": images, "label": self.labels[part], "text": self.texts[part]}
            table = pa.table(columns).replace_schema_metadata(about)
            pq.write_table(table, folder / f"train-{shard:05}.parquet", row_group_size=4)
        return folder


@pytest.fixture
def made(tmp_path):
    return Pictures(tmp_path / "folder")
