"""Shared network calls: each request gets its own answer, as it would alone, and nobody waits for the slow."""

import threading
import time

import pytest
import torch
from torch import nn

from unnoise.engine.sharing import Detour, Meeting
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


def together(meeting, asked, work):
    """What `work` gives for each of `asked`, in threads that are all under way at once."""
    found, ready = [None] * len(asked), threading.Barrier(len(asked))

    def run(k):
        with meeting.joined():
            ready.wait()
            try:
                found[k] = work(asked[k])
            except Exception as error:
                found[k] = error

    threads = [threading.Thread(target=run, args=(k,)) for k in range(len(asked))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    return found


@torch.no_grad()
def test_different_conditions_share_one_call_and_each_gets_what_it_gets_alone():
    own, meeting = network(), Meeting(linger=5.0)
    asked = [
        (torch.randn(n, 2), torch.rand(n) * 1000, cond)
        for n, cond in [
            (1, None),
            (3, {"label": torch.tensor([0, 1, 3])}),
            (2, {"label": torch.tensor([2, 2])}),
            (1, {}),
        ]
    ]
    with torch.no_grad():
        alone = [own(*each) for each in asked]

    def work(each):
        with torch.no_grad():
            return Detour(own, meeting)(*each)

    for answer, expected in zip(together(meeting, asked, work), alone, strict=True):
        torch.testing.assert_close(answer, expected, rtol=1e-5, atol=1e-6)
    assert (meeting.tally.calls, meeting.tally.asked) == (1, 4)


def test_samples_of_other_shapes_and_types_go_apart():
    double, meeting = Counting(), Meeting(linger=5.0)
    asked = [torch.ones(1, 2), torch.ones(1, 3), torch.ones(2, 2).double(), torch.ones(4, 2)]
    answers = together(meeting, asked, lambda x: meeting.ask(double, x, torch.zeros(len(x)), None))
    assert all(torch.equal(answer, 2 * x) and answer.dtype == x.dtype for answer, x in zip(answers, asked, strict=True))
    assert sorted(double.rows) == [1, 2, 5]


def test_what_fails_for_one_fails_for_no_other():
    double, meeting = Counting(), Meeting(linger=5.0)
    asked = [torch.full((1, 2), float(k)) for k in (1, 500, 3)]
    one, wrong, three = together(meeting, asked, lambda x: meeting.ask(double, x, torch.zeros(1), None))
    assert torch.equal(one, 2 * asked[0])
    assert torch.equal(three, 2 * asked[2])
    assert isinstance(wrong, ValueError)
    assert meeting.tally.calls == len(double.rows) == 4  # the one that was shared, too
    assert meeting.tally.asked == 3


def test_a_call_has_no_more_rows_than_allowed_unless_one_asks_for_more():
    double, meeting = Counting(), Meeting(linger=5.0, most_rows=4)
    asked = [torch.ones(n, 2) for n in (3, 3, 1, 9, 2)]
    answers = together(meeting, asked, lambda x: meeting.ask(double, x, torch.zeros(len(x)), None))
    assert all(torch.equal(answer, 2 * x) for answer, x in zip(answers, asked, strict=True))
    assert sum(double.rows) == 18
    assert all(rows <= 4 or rows == 9 for rows in double.rows)


def test_who_is_under_way_but_does_not_ask_holds_nobody_up():
    double, meeting = Counting(), Meeting(linger=0.02)
    with meeting.joined(), meeting.joined():
        began = time.perf_counter()
        for _ in range(5):
            meeting.ask(double, torch.ones(1, 2), torch.zeros(1), None)
        took = time.perf_counter() - began
    assert 5 * 0.02 <= took < 2.0


def test_who_is_alone_waits_for_nobody():
    double, meeting = Counting(), Meeting(linger=10.0)
    with meeting.joined():
        began = time.perf_counter()
        meeting.ask(double, torch.ones(1, 2), torch.zeros(1), None)
        assert time.perf_counter() - began < 5.0


def test_who_leaves_is_waited_for_no_longer():
    double, meeting = Counting(), Meeting(linger=30.0)
    leaving = threading.Event()

    def stay():
        with meeting.joined():
            leaving.wait(30)

    thread = threading.Thread(target=stay)
    thread.start()
    with meeting.joined():
        threading.Timer(0.1, leaving.set).start()
        began = time.perf_counter()
        meeting.ask(double, torch.ones(1, 2), torch.zeros(1), None)
        assert 0.05 < time.perf_counter() - began < 10.0
    thread.join()


@pytest.mark.parametrize("linger", [0.0, 0.001])
def test_many_calls_of_many_threads_are_all_answered(linger):
    double, meeting = Counting(seconds=0.0005), Meeting(linger=linger, most_rows=6)

    def work(k):
        for i in range(20):
            x = torch.full((1 + (k + i) % 3, 2), float(k + i) / 2)
            if not torch.equal(meeting.ask(double, x, torch.zeros(len(x)), None), 2 * x):
                return False
        return True

    assert all(found is True for found in together(meeting, list(range(12)), work))
    assert meeting.tally.asked == 240
    assert meeting.tally.calls < 240


def test_a_strict_request_and_one_that_wants_gradients_share_nothing():
    own, meeting = network(), Meeting(linger=5.0)
    x, level = torch.randn(2, 2), torch.rand(2) * 1000
    with torch.no_grad():
        expected = own(x, level, None)
        with meeting.joined(), meeting.joined():  # who would wait, would wait for five seconds
            began = time.perf_counter()
            assert torch.equal(Detour(own, meeting, strict=True)(x, level), expected)
    x.requires_grad_()
    with meeting.joined(), meeting.joined():
        Detour(own, meeting)(x, level).sum().backward()
    assert time.perf_counter() - began < 3.0
    assert x.grad is not None
    assert bool(x.grad.abs().sum() > 0)
