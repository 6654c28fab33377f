"""Whether intervals hold what they promise, counted over many draws."""

import math

import pytest
import torch

from unnoise.evaluation.metrics.base import Cloud, metrics

# 95 % of 200 draws is 190, with a standard deviation of 3.1.
DRAWS = 200
N = 150
A, B, SHIFT = 1.0, 1.3, 0.2  # standard deviations of the two Gaussians, and how far apart they are along each axis


def draw(n, d, seed):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def pairs(d, shift=SHIFT):
    for seed in range(DRAWS):
        yield Cloud(A * draw(N, d, 2 * seed)), Cloud(B * draw(N, d, 2 * seed + 1) + shift)


def share_of_draws(metric, d, truth, shift=SHIFT):
    """How often the truth lies inside, and the mean half-width over 1.96 standard deviations of the values."""
    inside, values, widths = 0, [], []
    for made, real in pairs(d, shift):
        found = metric.measure(made, real)
        inside += found.low <= truth(found) <= found.high
        values.append(found.value)
        widths.append((found.high - found.low) / 2)
    spread = float(torch.tensor(values, dtype=torch.float64).std())
    return inside / DRAWS, sum(widths) / DRAWS / (1.96 * spread)


def mean_cube(mean_x, std_x, mean_y, std_y, d):
    """E (x y / d + 1)^3 of independent Gaussians with these means along each axis."""
    product, square_x, square_y = d * mean_x * mean_y, d * mean_x**2, d * mean_y**2
    first = product
    second = product**2 + std_x**2 * square_y + std_y**2 * square_x + d * std_x**2 * std_y**2
    cube_y = product**3 + 3 * product * std_y**2 * square_x
    third = cube_y + 3 * std_x**2 * product * (square_y + (d + 2) * std_y**2)
    return third / d**3 + 3 * second / d**2 + 3 * first / d + 1


def test_the_interval_of_kid_holds_the_truth():
    d = 4
    truth = mean_cube(0, A, 0, A, d) + mean_cube(SHIFT, B, SHIFT, B, d) - 2 * mean_cube(0, A, SHIFT, B, d)
    share, width = share_of_draws(metrics.build("kid"), d, lambda found: truth)
    assert 0.90 <= share <= 0.99
    assert 0.9 < width < 1.2


def test_the_interval_of_energy_holds_the_truth():
    def mean_distance(variance, shift):
        s = math.sqrt(variance)
        bell = s * math.sqrt(2 / math.pi) * math.exp(-(shift**2) / (2 * variance))
        return bell + shift * math.erf(shift / (s * math.sqrt(2)))

    far = 0.6
    truth = 2 * mean_distance(A**2 + B**2, far) - mean_distance(2 * A**2, 0) - mean_distance(2 * B**2, 0)
    share, width = share_of_draws(metrics.build("energy"), 1, lambda found: truth, far)
    assert 0.90 <= share <= 0.99
    assert 0.9 < width < 1.3


def test_the_interval_of_mmd_holds_the_truth_for_the_width_that_was_found():
    d = 4

    def mean_kernel(variance, shift, width):
        total = width**2 + variance
        return (width**2 / total) ** (d / 2) * math.exp(-d * shift**2 / (2 * total))

    def truth(found):
        width = found.details["width"]
        return (
            mean_kernel(2 * A**2, 0, width)
            + mean_kernel(2 * B**2, 0, width)
            - 2 * mean_kernel(A**2 + B**2, SHIFT, width)
        )

    share, width = share_of_draws(metrics.build("mmd"), d, truth)
    assert 0.90 <= share <= 0.99
    assert 0.9 < width < 1.3


def test_the_interval_of_fid_infinity_holds_the_truth_and_that_of_fid_the_mean_of_its_size():
    d = 4
    truth = d * SHIFT**2 + d * (B - A) ** 2
    found = [metrics.build("fid").measure(*pair) for pair in pairs(d)]
    inside = sum(f.details["fid_infinity_low"] <= truth <= f.details["fid_infinity_high"] for f in found)
    assert 0.90 <= inside / DRAWS <= 0.99
    values = torch.tensor([f.value for f in found], dtype=torch.float64)
    mean = float(values.mean())
    assert mean - truth > 3 * float(values.std()) / math.sqrt(DRAWS)  # the bias is real
    # N, N / 2 and N / 4 leave some of it: E of the distance is no straight line in 1 / N.
    limits = torch.tensor([f.details["fid_infinity"] for f in found], dtype=torch.float64)
    assert abs(float(limits.mean()) - truth) < 0.25 * (mean - truth) + 2 * float(limits.std()) / math.sqrt(DRAWS)
    assert 0.90 <= sum(f.low <= mean <= f.high for f in found) / DRAWS <= 0.99


# Two halves of one data set, each against a third part of it: all three are of one distribution and one size.


NAMES = [
    "fid", "kid", "cmmd", "precision", "recall", "density", "coverage", "vendi", "accuracy",
    "energy", "mmd", "sliced_wasserstein", "wasserstein",
]  # fmt: skip


def thirds(digits, size, times=100):
    x, labels = digits
    for seed in range(times):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
        yield [Cloud(x[part], labels[part]) for part in order[: 3 * size].split(size)]


def halves(digits, name, size):
    """In how many of 100 splits each half lies inside the other's interval; in how many 0 does, without bias; widths."""
    metric = metrics.build({"name": name, "directions": 64} if name == "sliced_wasserstein" else name)
    inside, near_0, values, widths = 0, 0, [], []
    for real, first, second in thirds(digits, size):
        a, b = metric.measure(first, real), metric.measure(second, real)
        inside += b.low <= a.value <= b.high and a.low <= b.value <= a.high
        low, high = (a.details.get(f"fid_infinity_{end}", getattr(a, end)) for end in ("low", "high"))
        near_0 += low <= 0 <= high
        values += [a.value, b.value]
        widths += [(found.high - found.low) / 2 for found in (a, b)]
    spread = float(torch.tensor(values, dtype=torch.float64).std())
    return inside, near_0, sum(widths) / len(widths) / (1.96 * spread)


def check_halves(digits, name, size):
    inside, near_0, width = halves(digits, name, size)
    print(f"{name}: {inside} of 100 inside each other, {near_0} with 0 inside, {width:.2f} as wide as the spread")
    assert inside >= 93
    # Halves differ by the root of 2 more than one spreads, which is the least width that can hold that; and a third part
    # of 1,797 digits spreads by up to the root of 1.5 less than one of endlessly many.
    assert 1.1 < width < 2.2
    if name in ("fid", "kid", "cmmd", "energy", "mmd"):
        assert near_0 >= 93


@pytest.mark.parametrize("name", NAMES)
def test_two_halves_of_one_data_set_lie_inside_each_others_interval(digits, name):
    check_halves(digits, name, 200)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_two_thirds_of_a_whole_data_set_lie_inside_each_others_interval(digits, name):
    check_halves(digits, name, 599)
