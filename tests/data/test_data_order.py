"""The order of the data is a permutation in every epoch, can be asked for anywhere, and mixes what it reads in turn."""

import numpy as np
import pytest

from unnoise.data.order import InterleavedOrder, ShuffledOrder
from unnoise.randomness import permutations

COUNTS = [40, 7, 0, 33, 21, 64, 1, 35]  # 201 samples


@pytest.fixture(
    params=[
        ShuffledOrder(201, 3),
        *(
            InterleavedOrder(COUNTS, 3, lanes, 16, stripe)
            for lanes, stripe in ((1, 1), (4, 1), (7, 1), (300, 1), (4, 5))
        ),
    ],
    ids=["shuffled", "1 lane", "4 lanes", "7 lanes", "more lanes than samples", "stripes"],
)
def order(request):
    return request.param


def test_every_epoch_has_each_sample_once_and_an_order_of_its_own(order):
    epochs = order.index_at(np.arange(3 * 201)).reshape(3, 201)
    for epoch in epochs:
        assert sorted(epoch) == list(range(201))
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_any_positions_can_be_asked_for_in_any_order_without_those_before(order):
    whole = order.index_at(np.arange(1000))
    rng = np.random.default_rng(0)
    for _ in range(20):
        positions = rng.integers(0, 1000, 37)
        fresh = ShuffledOrder(201, 3)
        if isinstance(order, InterleavedOrder):
            fresh = InterleavedOrder(COUNTS, 3, order.lanes, 16, order.stripe)
        np.testing.assert_array_equal(fresh.index_at(positions), whole[positions])


def test_the_shares_of_several_processes_are_the_order_of_one(order):
    whole = order.index_at(np.arange(402))
    shares = [order.index_at(np.arange(rank, 402, 3)) for rank in range(3)]
    assert sorted(np.concatenate(shares)) == sorted(whole)
    for rank, share in enumerate(shares):
        np.testing.assert_array_equal(share, whole[rank::3])


def test_data_in_memory_keeps_the_order_that_it_always_had():
    expected = permutations(5, 90, 0, 4).reshape(-1)
    np.testing.assert_array_equal(ShuffledOrder(90, 5).index_at(np.arange(360)), expected)


def test_another_seed_is_another_order():
    one, other = (InterleavedOrder(COUNTS, seed, 4, 16).index_at(np.arange(201)) for seed in (1, 2))
    assert (one != other).mean() > 0.9


def test_a_lane_reads_its_shards_one_after_the_other_and_stays_within_a_window():
    counts = [100] * 12
    order = InterleavedOrder(counts, 0, lanes=4, window=20)
    for lane in range(4):
        read = order.index_at(np.arange(lane, 1200, 4))
        shards = read // 100
        assert (np.diff(shards) != 0).sum() == 2  # three shards, none of them twice
        for shard in range(3):
            within = read[100 * shard : 100 * (shard + 1)] % 100
            assert (np.abs(within - np.arange(100)) < 20).all()
            assert len(set(np.diff(within))) > 10


@pytest.mark.parametrize(("batch", "processes"), [(32, 2), (32, 4), (16, 8)])
def test_a_process_that_takes_its_part_of_every_batch_reads_its_part_of_the_shards(batch, processes):
    order = InterleavedOrder([100] * 16, 0, lanes=8, window=32, stripe=batch // 8)
    epoch = np.arange(1600).reshape(-1, processes, batch // processes)
    shards = [set(order.index_at(epoch[:, rank].reshape(-1)) // 100) for rank in range(processes)]
    assert set.union(*shards) == set(range(16))
    assert [len(each) for each in shards] == [16 // processes] * processes


def test_labels_that_come_shard_by_shard_are_mixed_in_every_batch():
    order = InterleavedOrder([100] * 20, 0, lanes=10, window=50)
    labels = order.index_at(np.arange(2000)) // 100
    assert min(len(set(batch)) for batch in labels.reshape(-1, 40)) >= 10


def test_neighbours_in_a_shard_are_not_neighbours_in_the_order():
    read = InterleavedOrder([1000] * 8, 0, lanes=1, window=256).index_at(np.arange(8000))
    beside = np.abs(np.diff(read)) == 1
    assert beside.mean() < 0.05  # by chance 2 / 256
