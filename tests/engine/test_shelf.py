"""Models under a budget of memory: those used least recently make room, and those at work stay."""

import threading

import pytest

from unnoise.engine.shelf import Shelf
from unnoise.errors import BadOption, Busy, ModelFolderError, UnknownName

from ..conftest import make_model


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    root = tmp_path_factory.mktemp("three")
    return {name: str(make_model(seed=k).save(root / name)) for k, name in enumerate("abc")}


def loaded(shelf):
    return [card.name for card in shelf.cards() if card.loaded]


def size(three):
    with Shelf(three).borrow("a") as model:
        return model.memory()


def test_a_model_takes_the_memory_of_its_weights(three):
    with Shelf(three).borrow("a") as model:
        assert model.memory() == 4 * model.parameters() + sum(4 * each.numel() for each in model.denoiser.buffers())


def test_the_least_recently_used_makes_room(three):
    shelf = Shelf(three, memory=int(2.7 * size(three)))
    for name in "aba":
        with shelf.borrow(name):
            pass
    with shelf.borrow("c"):
        assert loaded(shelf) == ["a", "c"]
    assert shelf.loads == 3
    assert shelf.loaded() <= shelf.memory


def test_a_model_at_work_stays_and_others_wait_for_its_memory(three):
    shelf = Shelf(three, memory=int(1.7 * size(three)))
    with shelf.borrow("a"):
        with pytest.raises(Busy, match="'b' must wait for memory"), shelf.borrow("b", patience=0.05):
            pass
        assert loaded(shelf) == ["a"]
    got = threading.Event()

    def wait_for_b():
        with shelf.borrow("b"):
            got.set()

    with shelf.borrow("a"):
        thread = threading.Thread(target=wait_for_b)
        thread.start()
        assert not got.wait(0.1)
    assert got.wait(30)
    thread.join()


def test_a_model_is_loaded_once_for_all_who_want_it(three):
    shelf, models = Shelf(three), []

    def borrow():
        with shelf.borrow("a") as model:
            models.append(model)

    threads = [threading.Thread(target=borrow) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, models))) == 1
    assert shelf.loads == 1


def test_what_fits_in_no_case_is_refused(three):
    with pytest.raises(BadOption, match="allow more"), Shelf(three, memory=10).borrow("a"):
        pass


def test_cards_tell_of_a_model_without_loading_it(three, tmp_path):
    shelf = Shelf(three)
    damaged = make_model().save(tmp_path / "damaged")
    shelf.add(damaged)
    (damaged / "model.yaml").write_text("format: 1\n")
    card, wrong = shelf.card("a"), shelf.card("damaged")
    assert (card.kind, card.shape, card.labels, card.takes_words) == ("points", (2,), ("a", "b"), False)
    assert card.bytes > 0
    assert card.sampling["steps"] == 4
    assert card.parts["network"]["name"] == "mlp"
    assert not card.loaded
    assert wrong.error
    assert "\n" not in wrong.error


def test_names_are_names(three, tmp_path):
    shelf = Shelf(three)
    for name in ("", "../a", "a/b", ".hidden", "a b", "x" * 101):
        with pytest.raises(BadOption, match="is no name for a model"):
            shelf.add(three["a"], name)
    with pytest.raises(BadOption, match="two models would be called 'a'"):
        shelf.add(three["b"], "a")
    assert shelf.add(three["a"], "a") == "a"
    assert shelf.add(three["b"], "other") == "other"
    with pytest.raises(ModelFolderError, match="there is no model at"):
        shelf.add(tmp_path)
    shelf.remove("other")
    assert shelf.names() == ["a", "b", "c"]
    with pytest.raises(UnknownName, match="no model is called 'other'"):
        shelf.remove("other")


def test_a_run_is_called_as_its_folder(three, tmp_path):
    make_model().save(tmp_path / "digits" / "model")
    shelf = Shelf()
    assert shelf.add(tmp_path / "digits") == "digits"
    with shelf.borrow("digits") as model:
        assert model.path == str(tmp_path / "digits")
