"""How the kernels are built, kept and found again, and what happens where they cannot be."""

import pytest
import torch

from unnoise.nn.kernels import tokens
from unnoise.nn.kernels.library import SOURCES, WAYS, library
from unnoise.nn.modulation import gelu


def test_the_library_is_built_once_and_found_again(tmp_path, monkeypatch):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path))
    built = library.__wrapped__()
    files = list(tmp_path.rglob("*.so"))
    assert len(files) == (built is not None)
    monkeypatch.setattr("unnoise.nn.kernels.library._build", lambda *_: pytest.fail("built again"))
    again = library.__wrapped__()
    assert (again is None) == (built is None)


@pytest.mark.parametrize("compiler", ["none of this name", "false"])
def test_without_a_compiler_that_works_there_are_no_kernels(tmp_path, monkeypatch, compiler):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path))
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setattr("shutil.which", lambda name: name if name == compiler == "false" else None)
    assert library.__wrapped__() is None
    assert not list(tmp_path.rglob("*.so"))


def test_the_environment_can_do_without_kernels(monkeypatch):
    monkeypatch.setenv("UNNOISE_KERNELS", "0")
    assert library.__wrapped__() is None


def test_where_nothing_can_be_kept_kernels_serve_one_process(tmp_path, monkeypatch):
    (tmp_path / "a file").touch()
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "a file"))
    assert (library.__wrapped__() is None) == (library() is None)


@pytest.mark.parametrize("ways", [[i] for i in range(4)], ids=str)
def test_every_way_to_build_them_gives_the_same(ways, tmp_path, monkeypatch):
    compiled = "unnoise.nn.kernels.library"
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path))
    monkeypatch.setattr(f"{compiled}.WAYS", [WAYS[i] for i in ways])
    monkeypatch.setattr(f"{compiled}.SOURCES", [path for path in SOURCES if path.stem == "tokens"])
    own = library.__wrapped__()
    if own is None:  # this compiler cannot go this way
        return
    torch.manual_seed(0)
    x = torch.randn(3, 50)
    for kind in (torch.float32, torch.bfloat16):
        found = []
        for kernels in (library(), own):
            monkeypatch.setattr(tokens, "library", lambda: kernels)  # noqa: B023
            found.append(gelu(x.to(kind)))
        assert torch.equal(*found)
