"""Parts of bulk work: who does them, what is done again, and what is told where that does not help."""

from collections import Counter, deque

import pytest

from unnoise.errors import BadOption, WorkersLost
from unnoise.recipes.places.base import Job, places
from unnoise.recipes.places.handing_out import TRIES, Died, Workers, hand_out
from unnoise.recipes.places.here import Here
from unnoise.recipes.places.on_ray import RayPlace

PARTS = [range(low, min(low + 4, 18)) for low in range(0, 18, 4)]


class Squares(Job):
    def on(self, device):
        return self

    def __call__(self, part, progress=None):
        if progress is not None:
            progress(1, 2)
        return [k * k for k in part]


class Mortals(Workers):
    """Workers in this process, whose fate is known: how often the worker of a part dies, and how many ever get ready."""

    wanted = "as many as the test wants"

    def __init__(self, most, deaths=(), ready=1000, stillborn=0):
        self.most, self.deaths, self.room, self.stillborn = most, Counter(deaths), ready, stillborn
        self.hired = 0
        self.begun = []
        self.pending = deque()

    def hire(self):
        self.hired += 1
        ticket = ("ready", self.hired)
        if self.room:
            self.room -= 1
            self.pending.append(ticket)
        return self.hired, ticket

    def give(self, worker, part):
        ticket = ("part", worker, part.start, len(self.begun))
        self.begun.append(part)
        self.pending.append(ticket)
        return ticket

    def wait(self, tickets, seconds):
        assert {t for t in self.pending} <= set(tickets)
        return [self.pending.popleft()] if self.pending else []

    def take(self, ticket):
        if ticket[0] == "ready":
            if self.stillborn:
                self.stillborn -= 1
                raise Died("no room")
            return None
        if self.deaths[ticket[2]]:
            self.deaths[ticket[2]] -= 1
            raise Died("killed")
        return Squares()(next(part for part in PARTS if part.start == ticket[2]))


def kept_by(run):
    """What a run keeps, and what it answers."""
    kept, told = {}, []

    def keep(part, result):
        assert part not in kept, "a part is kept once"
        kept[part] = result

    whole = run(keep, lambda done, total: told.append((done, total)))
    return kept, told, whole


WANTED = {part: [k * k for k in part] for part in PARTS}


def test_here_and_by_workers_the_same_parts_are_done_once_each():
    here = kept_by(lambda keep, tell: Here().run(Squares(), PARTS, keep, tell))
    for most in (1, 2, 3, 9):
        workers = Mortals(most)
        elsewhere = kept_by(lambda keep, tell, w=workers: hand_out(w, PARTS, keep, tell))
        assert elsewhere[0] == here[0] == WANTED
        assert elsewhere[2] is here[2] is True
        assert elsewhere[1][-1] == here[1][-1] == (18, 18)
        assert workers.hired == min(most, len(PARTS))
    assert [done for done, _ in here[1]] == [2, 4, 6, 8, 10, 12, 14, 16, 17, 18]  # half of a part is told too


def test_a_part_whose_worker_dies_is_done_by_a_new_one():
    workers = Mortals(2, deaths={4: TRIES - 1, 16: 1})
    kept, _, whole = kept_by(lambda keep, tell: hand_out(workers, PARTS, keep, tell))
    assert whole
    assert kept == WANTED
    assert Counter(part.start for part in workers.begun) == {0: 1, 4: 3, 8: 1, 12: 1, 16: 2}
    assert workers.hired == 2 + 3


def test_a_part_that_kills_every_worker_is_named_and_what_is_done_stays():
    kept = {}
    with pytest.raises(WorkersLost, match=r"samples 4 to 7 died 3 times \(killed\)"):
        hand_out(Mortals(2, deaths={4: 99}), PARTS, kept.__setitem__)
    assert kept
    assert all(WANTED[part] == found for part, found in kept.items())


def test_a_worker_for_which_there_is_no_room_holds_nothing_up():
    workers = Mortals(4, ready=1)
    assert kept_by(lambda keep, tell: hand_out(workers, PARTS, keep, tell))[0] == WANTED


def test_that_no_worker_comes_is_told_after_a_while():
    with pytest.raises(WorkersLost, match=r"no worker was ready within 0\.01 seconds: as many as the test wants"):
        hand_out(Mortals(2, ready=0), PARTS, WANTED.__setitem__, patience=0.01)
    with pytest.raises(WorkersLost, match=r"3 workers died before they were ready \(no room\)"):
        hand_out(Mortals(2, stillborn=3), PARTS, WANTED.__setitem__)
    assert kept_by(lambda keep, tell: hand_out(Mortals(2, stillborn=2), PARTS, keep, tell))[0] == WANTED


def test_a_stop_finishes_and_keeps_what_is_in_work():
    workers, kept = Mortals(2), {}
    assert not hand_out(workers, PARTS, kept.__setitem__, stop=lambda: len(kept) >= 2)
    assert set(kept) == set(workers.begun)  # nothing that was begun is lost
    assert 2 <= len(kept) <= 4  # two were in work when two were kept
    here = {}
    assert not Here().run(Squares(), PARTS, here.__setitem__, stop=lambda: len(here) >= 2)
    assert list(here) == PARTS[:2]


def test_nothing_to_do_needs_no_worker():
    assert hand_out(Mortals(2, ready=0), [], WANTED.__setitem__)


@pytest.mark.parametrize("name", list(places))
def test_every_place_does_nothing_where_nothing_is_to_be_done(name):
    assert places.build(name).run(Squares(), [], WANTED.__setitem__)


def test_an_address_at_which_nobody_answers_is_told_at_once():
    with pytest.raises(BadOption, match=r"no Ray cluster to work with at '127\.0\.0\.1:9' \(.*refused"):
        RayPlace(address="127.0.0.1:9").run(Squares(), PARTS, WANTED.__setitem__)
