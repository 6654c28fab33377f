"""How noisy a gradient is."""

import numpy as np
import pytest

from unnoise.training.noise_scale import GradientNoiseScale, GradientNorms


def test_the_scale_of_known_noise_is_found():
    rng = np.random.default_rng(0)
    true, sigma, part, batch = rng.normal(size=50) * 0.1, 0.7, 16, 64
    scale = GradientNoiseScale(memory=0.995)
    noise, signal = [], []
    for _ in range(2000):
        samples = true + sigma * rng.normal(size=(batch, 50))
        small, large = samples[:part].mean(0), samples.mean(0)
        norms = GradientNorms(part, float(small @ small), batch, float(large @ large))
        noise.append(norms.noise)
        signal.append(norms.signal)
        scale.add(norms.noise, norms.signal)
    trace, square = 50 * sigma**2, float(true @ true)
    assert np.mean(noise) == pytest.approx(trace, rel=0.02)
    assert np.mean(signal) == pytest.approx(square, rel=0.05)
    assert scale.value == pytest.approx(trace / square, rel=0.15)


def test_nothing_is_said_while_chance_hides_the_gradient():
    scale = GradientNoiseScale()
    assert scale.value is None
    scale.add(1.0, -2.0)
    assert scale.value is None
    scale.add(float("nan"), 1.0)
    scale.add(1.0, 50.0)
    assert scale.value > 0
