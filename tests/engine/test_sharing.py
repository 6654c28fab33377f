"""Shared network calls: each request gets its own answer, as it would alone, and nobody waits for the slow."""

import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from unnoise.engine.sharing import Detour, Turns
from unnoise.nn.base import networks


def network(classes=3):
    torch.manual_seed(0)
    made = networks["mlp"]((2,), None, classes, networks.build({"name": "mlp", "width": 8}).config).eval()
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.3 * torch.randn(p.shape))
    return made


class Counting(nn.Module):
    """Notes how many rows each call has; fails, or takes its time, where it is told to."""

    def __init__(self, inner=None, seconds=0.0):
        super().__init__()
        self.inner, self.rows, self.seconds = inner, [], seconds

    def forward(self, x, noise_level, cond=None):
        self.rows.append(len(x))
        time.sleep(self.seconds)
        if bool((x > 100).any()):
            raise ValueError("too large")
        return 2 * x if self.inner is None else self.inner(x, noise_level, cond)


@pytest.fixture
def turns():
    made = Turns()
    yield made
    made.close()


def soon(true):
    """Waits until something is true."""
    until = time.monotonic() + 30
    while not true():
        assert time.monotonic() < until
        time.sleep(0.001)


def together(turns, asked, work):
    """What `work` gives for each of `asked`, or raises, where all have come, in this order, before the first begins."""

    def one(each):
        try:
            return turns.run(lambda: work(each))
        except Exception as error:
            return error

    begun, gate = threading.Event(), threading.Event()
    with ThreadPoolExecutor(len(asked) + 1) as people:
        people.submit(turns.run, lambda: begun.set() or gate.wait(30))
        begun.wait(30)
        found = []
        for each in asked:
            found.append(people.submit(one, each))
            soon(lambda: turns._come.qsize() == len(found))
        gate.set()
        return [each.result(30) for each in found]


@torch.no_grad()
def test_different_conditions_share_one_call_and_each_gets_what_it_gets_alone(turns):
    own = network()
    asked = [
        (torch.randn(n, 2), torch.rand(n) * 1000, cond)
        for n, cond in [
            (1, None),
            (3, {"label": torch.tensor([0, 1, 3])}),
            (2, {"label": torch.tensor([2, 2])}),
            (1, {}),
        ]
    ]
    alone = [own(*each) for each in asked]

    def work(each):
        with torch.no_grad():
            return Detour(own, turns)(*each)

    for answer, expected in zip(together(turns, asked, work), alone, strict=True):
        torch.testing.assert_close(answer, expected, rtol=1e-5, atol=1e-6)
    assert (turns.tally.calls, turns.tally.asked) == (1, 4)


def test_samples_of_other_shapes_and_types_go_apart(turns):
    double = Counting()
    asked = [torch.ones(1, 2), torch.ones(1, 3), torch.ones(2, 2).double(), torch.ones(4, 2)]
    answers = together(turns, asked, lambda x: turns.ask(double, x, torch.zeros(len(x)), None))
    assert all(torch.equal(answer, 2 * x) and answer.dtype == x.dtype for answer, x in zip(answers, asked, strict=True))
    assert double.rows == [5, 1, 2]


def test_each_network_is_asked_by_itself(turns):
    one, other = Counting(), Counting()
    asked = [(one, 1), (other, 2), (one, 3)]
    together(turns, asked, lambda each: turns.ask(each[0], torch.ones(each[1], 2), torch.zeros(each[1]), None))
    assert (one.rows, other.rows) == ([4], [2])


def test_what_fails_for_one_fails_for_no_other(turns):
    double = Counting()
    asked = [torch.full((1, 2), float(k)) for k in (1, 500, 3)]
    one, wrong, three = together(turns, asked, lambda x: turns.ask(double, x, torch.zeros(1), None))
    assert torch.equal(one, 2 * asked[0])
    assert torch.equal(three, 2 * asked[2])
    assert isinstance(wrong, ValueError)
    assert turns.tally.calls == len(double.rows) == 4  # the one that was shared, too
    assert turns.tally.asked == 3


def test_a_call_has_no_more_rows_than_allowed_unless_one_asks_for_more(turns):
    double = Counting()
    asked = [torch.ones(n, 2) for n in (3, 3, 1, 9, 2)]
    answers = together(turns, asked, lambda x: turns.ask(double, x, torch.zeros(len(x)), None, most_rows=4))
    assert all(torch.equal(answer, 2 * x) for answer, x in zip(answers, asked, strict=True))
    assert double.rows == [3, 4, 9, 2]


def test_who_comes_while_others_are_under_way_shares_their_next_call(turns):
    double, come = Counting(), threading.Event()

    def long(_):
        found = []
        for k in range(3):
            found.append(turns.ask(double, torch.full((1, 2), float(k)), torch.zeros(1), None))
            if k == 0:  # from now on somebody waits to begin
                come.set()
                soon(lambda: turns._come.qsize() == 1)
        return found

    def short(_):
        return turns.ask(double, torch.full((2, 2), 7.0), torch.zeros(2), None)

    with ThreadPoolExecutor(2) as people:
        first = people.submit(turns.run, lambda: long(0))
        come.wait(30)
        second = people.submit(turns.run, lambda: short(0))
        assert [float(each[0, 0]) for each in first.result(30)] == [0.0, 2.0, 4.0]
        assert torch.equal(second.result(30), torch.full((2, 2), 14.0))
    assert double.rows == [1, 3, 1]


def test_many_calls_of_many_works_are_all_answered(turns):
    double = Counting()

    def work(k):
        for i in range(20):
            x = torch.full((1 + (k + i) % 3, 2), float(k + i) / 2)
            if not torch.equal(turns.ask(double, x, torch.zeros(len(x)), None, most_rows=6), 2 * x):
                return False
        return True

    assert all(found is True for found in together(turns, list(range(12)), work))
    assert turns.tally.asked == 240
    assert turns.tally.calls < 120
    assert max(double.rows) <= 6


def test_no_work_learns_whether_another_keeps_gradients(turns):
    double = Counting()

    def work(keeps):
        seen = []
        for _ in range(3):
            with torch.set_grad_enabled(keeps):
                turns.ask(double, torch.ones(1, 2), torch.zeros(1), None)
                seen.append(torch.is_grad_enabled())
            turns.ask(double, torch.ones(1, 2), torch.zeros(1), None)
            seen.append(torch.is_grad_enabled())
        return seen

    found = together(turns, [True, False, True, False], work)
    assert found == [[True, True] * 3, [False, True] * 3] * 2


def test_a_strict_request_and_one_that_wants_gradients_share_nothing(turns):
    own = Counting(network())
    x, level = torch.randn(2, 2), torch.rand(2) * 1000
    with torch.no_grad():
        expected = own.inner(x, level, None)

    @torch.no_grad()
    def strict(_):
        return Detour(own, turns, strict=True)(x, level)

    def gradient(_):
        at = x.clone().requires_grad_()
        Detour(own, turns)(at, level).sum().backward()
        return at.grad

    made, again, slope = together(turns, [strict, strict, gradient], lambda each: each(0))
    assert torch.equal(made, expected)
    assert torch.equal(again, expected)
    assert bool(slope.abs().sum() > 0)
    assert own.rows == [2, 2, 2]
    assert (turns.tally.calls, turns.tally.asked) == (3, 3)


@pytest.mark.parametrize("kind", ["strict", "gradient", "shared"])
def test_works_take_turns_call_by_call_whether_they_share_or_not(turns, kind):
    own, order = Counting(network()), []

    def work(calls):
        asked = Detour(own, turns, strict=kind == "strict")
        with torch.set_grad_enabled(kind == "gradient"):
            for _ in range(calls):
                asked(torch.ones(1, 2), torch.ones(1))
                order.append(calls)

    together(turns, [6, 2], work)
    assert order == [6, 2, 6, 2, 6, 6, 6, 6]


def test_what_a_work_raises_is_raised_where_it_was_given_and_the_others_go_on(turns):
    double = Counting()

    def work(k):
        turns.ask(double, torch.ones(1, 2), torch.zeros(1), None)
        if k == 1:
            raise KeyError("mine")
        turns.ask(double, torch.ones(1, 2), torch.zeros(1), None)
        return k

    zero, one, two = together(turns, [0, 1, 2], work)
    assert (zero, two) == (0, 2)
    assert isinstance(one, KeyError)
    assert double.rows == [3, 2]


def test_an_idle_thread_holds_no_network(turns):
    double = Counting()
    held = weakref.ref(double)
    together(turns, [1, 2], lambda n: turns.ask(double, torch.ones(n, 2), torch.zeros(n), None))
    double = None
    soon(lambda: (gc.collect(), held() is None)[1])  # the thread lets go of them a moment after it has answered


def test_closing_waits_for_the_works_under_way():
    turns, double, begun, answers = Turns(), Counting(seconds=0.02), threading.Event(), []

    def work():
        begun.set()
        for _ in range(5):
            answers.append(turns.ask(double, torch.ones(1, 2), torch.zeros(1), None))

    with ThreadPoolExecutor(1) as people:
        people.submit(turns.run, work)
        begun.wait(30)
        turns.close()
        assert len(answers) == 5
    assert not turns._thread.is_alive()
