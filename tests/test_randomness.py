"""The generator against its published answers, and what is promised of addresses."""

import numpy as np
import pytest
import torch
from scipy import stats

from unnoise.errors import ShapeError
from unnoise.randomness import (
    BlendedNoise,
    NoiseSource,
    address,
    normal,
    normal_like,
    normal_on,
    permutations,
    philox,
    random_words,
    uniform,
)

ONES = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((ONES, ONES, ONES, ONES), (ONES, ONES), "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_known_answers_of_random123(counter, key, expected):
    words = philox(key, tuple(np.array([c], dtype=np.uint64) for c in counter))
    assert " ".join(f"{int(w[0]):08x}" for w in words) == expected


KEY = address(0, "test")


def test_words_are_the_counter_blocks_of_each_sample():
    words = random_words(KEY, [5, 2**33 + 1], 6)
    assert words.shape == (2, 6)
    for row, index in zip(words, (5, 2**33 + 1), strict=True):
        counters = [(block, index & ONES, index >> 32, 0) for block in (0, 1)]
        blocks = [philox(KEY, tuple(np.array([c], dtype=np.uint64) for c in counter)) for counter in counters]
        assert row.tolist() == [int(w[0]) for block in blocks for w in block][:6]


def test_a_key_for_every_sample_gives_what_each_key_gives_alone():
    keys = np.array([address(0, "test", i) for i in range(3)], dtype=np.uint64)
    words = random_words((keys[:, :1], keys[:, 1:]), [7, 8, 9], 6)
    for i, row in enumerate(words):
        assert np.array_equal(row, random_words(address(0, "test", i), [7 + i], 6)[0])


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9])
def test_more_numbers_begin_with_the_fewer(count):
    for draw in (random_words, uniform, normal):
        assert np.array_equal(draw(KEY, range(3), count), draw(KEY, range(3), 12)[:, :count])


def test_uniform_numbers_are_uniform_and_never_reach_their_ends():
    u = uniform(KEY, range(1000), 100)
    assert u.min() > 0
    assert u.max() < 1
    assert stats.kstest(u.ravel(), "uniform").pvalue > 1e-3
    assert (0xFFFFFFFF + 0.5) * 2.0**-32 < 1


def test_normal_numbers_are_normal():
    z = normal(KEY, range(1000), 101)  # odd: half of the last pair is not used
    flat = z.ravel()
    n = flat.size
    assert stats.kstest(flat, "norm").pvalue > 1e-3
    # 4.5 standard errors of the first four moments
    for power, exact, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert (flat**power).mean() == pytest.approx(exact, abs=4.5 * (variance / n) ** 0.5)
    assert np.isfinite(z).all()


def test_components_and_samples_are_independent():
    z = normal(KEY, range(4000), 6)
    correlation = np.corrcoef(z.T) - np.eye(6)
    assert np.abs(correlation).max() < 4.5 / 4000**0.5
    # both halves of one pair of Box and Muller are one radius: their squares must be independent too
    assert np.abs(np.corrcoef((z**2).T) - np.eye(6)).max() < 4.5 / 4000**0.5
    assert abs(np.corrcoef(z[:-1, 0], z[1:, 0])[0, 1]) < 4.5 / 4000**0.5


def test_other_seeds_purposes_and_positions_give_other_and_independent_numbers():
    keys = [
        address(0, "start"),
        address(1, "start"),
        address(-1, "start"),
        address(0, "step"),
        address(0, "start", 0),
        address(0, "start", 0.0),
        address(0, "start", 1),
        address(0, "start", 0, 0),
        address(0, "start", 0.5),
        address(10, "start"),
        address(2**70, "start"),
    ]
    assert len(set(keys)) == len(keys)
    z = np.stack([normal(key, range(5000))[:, 0] for key in keys])
    assert np.abs(np.corrcoef(z) - np.eye(len(keys))).max() < 5 / 5000**0.5
    assert address(0, "start", 0.5) == address(0, "start", 0.5)


def test_starting_noise_of_a_sample_is_the_same_in_any_batch():
    start = NoiseSource(3, [7, 0, 2]).start((2, 3))
    assert start.shape == (3, 2, 3)
    assert start.dtype == torch.float32
    for i, index in enumerate((7, 0, 2)):
        assert torch.equal(NoiseSource(3, [index]).start((2, 3))[0], start[i])
    assert torch.equal(NoiseSource(3, range(8)).start((2, 3))[7], start[0])
    assert not torch.equal(NoiseSource(4, [7]).start((2, 3))[0], start[0])
    double = NoiseSource(3, [7]).start((2, 3), torch.float64)
    torch.testing.assert_close(double[0].float(), start[0], rtol=0, atol=0)


def test_step_noise_is_addressed_by_sample_interval_and_draw():
    like = torch.zeros(3, 4)
    source = NoiseSource(3, [7, 0, 2])
    noise = source(like, 0.5, 0.25)
    assert torch.equal(source(like, 0.5, 0.25), noise)
    assert torch.equal(NoiseSource(3, [0])(like[:1], 0.5, 0.25)[0], noise[1])
    others = [source(like, 0.5, 0.2), source(like, 0.4, 0.25), source(like, 0.5, 0.25, 1), source.start((4,))]
    for other in others:
        assert float((other - noise).abs().min()) > 0
    assert source(like.double(), 0.5, 0.25).dtype == torch.float64


def test_noise_does_not_repeat_between_samples_or_steps():
    source, like = NoiseSource(0, range(50)), torch.zeros(50, 2, dtype=torch.float64)
    drawn = torch.cat([source(like, t, t - 0.01).flatten() for t in (0.5, 0.49, 0.48, 0.01)])
    assert len(torch.unique(drawn)) == len(drawn)


def test_the_noise_of_a_batch_must_fit_it():
    with pytest.raises((ValueError, RuntimeError)):
        normal_like(KEY, range(3), torch.zeros(4, 2))


def test_each_epoch_has_a_permutation_of_its_own_whatever_came_before():
    orders = permutations(5, 100, 0, 4)
    assert orders.shape == (4, 100)
    for row in orders:
        assert sorted(row.tolist()) == list(range(100))
    assert len({tuple(row) for row in orders.tolist()}) == 4
    assert np.array_equal(permutations(5, 100, 2, 1)[0], orders[2])
    assert not np.array_equal(permutations(6, 100, 0, 1)[0], orders[0])
    assert permutations(5, 1, 0, 2).tolist() == [[0], [0]]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 1000])
def test_noise_of_another_device_is_made_of_the_same_words(count):
    samples = np.array([0, 1, 2**32 - 1, 2**32, 2**40 + 12345], dtype=np.int64)
    there = normal_on(torch.device("cpu"), address(5, "noise"), samples, count)
    assert there.shape == (5, count)
    assert there.dtype == torch.float64
    np.testing.assert_allclose(there.numpy(), normal(address(5, "noise"), samples, count), rtol=0, atol=1e-14)


def test_every_place_is_as_likely_for_every_sample():
    orders = permutations(1, 8, 0, 4000)
    counts = np.stack([np.bincount(orders[:, place], minlength=8) for place in range(8)])
    # 4000 / 8 = 500 expected, standard deviation 20.9
    assert np.abs(counts - 500).max() < 5 * 20.9
    assert stats.chisquare(counts.ravel()).pvalue > 1e-4


def test_blended_noise_is_standard_normal_and_ends_in_both_noises_to_the_bit():
    first, second = NoiseSource(1, range(4000)), NoiseSource(2, range(4000))
    like = torch.empty(4000, 5, dtype=torch.float64)
    for share, one in ((0.0, first), (1.0, second)):
        blended = BlendedNoise(first, second, share)
        assert torch.equal(blended.start((5,)), one.start((5,)))
        assert torch.equal(blended(like, 0.5, 0.4), one(like, 0.5, 0.4))
    for share in (0.2, 0.5):
        blended = BlendedNoise(first, second, share)
        for drawn in (blended.start((5,), torch.float64), blended(like, 0.5, 0.4)):
            assert stats.kstest(drawn.flatten().numpy(), "norm").pvalue > 1e-3
        angle = share * np.pi / 2
        ours = blended.start((5,), torch.float64).flatten()
        theirs = [noise.start((5,), torch.float64).flatten() for noise in (first, second)]
        covariances = [float(ours @ each) / len(ours) for each in theirs]
        assert covariances == pytest.approx([np.cos(angle), np.sin(angle)], abs=0.03)


def test_noises_of_other_numbers_of_samples_are_not_blended():
    with pytest.raises(ShapeError, match="2 samples"):
        BlendedNoise(NoiseSource(0, [0, 1]), NoiseSource(0, [0]), 0.5)
