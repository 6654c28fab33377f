"""The products of a linear layer, whichever library works them out."""

import numpy as np
import pytest
import torch

from unnoise.nn.products import add_outer, affine, times


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("sizes", [(3, 5, 2), (64, 66, 256), (130, 200, 170)], ids=["tiny", "seeds", "large"])
def test_they_are_those_of_numpy_to_rounding(sizes, dtype):
    batch, enter, leave = sizes
    torch.manual_seed(0)
    x, slope = torch.randn(batch, enter), torch.randn(batch, leave)
    weight, bias, total = torch.randn(leave, enter), torch.randn(leave), torch.randn(leave, enter)
    x64, slope64, weight64, bias64, total64 = (v.double().numpy() for v in (x, slope, weight, bias, total))
    x, slope, weight, bias, total = (v.to(dtype) for v in (x, slope, weight, bias, total))
    close = {"rtol": 1e-12, "atol": 1e-11} if dtype == torch.float64 else {"rtol": 1e-5, "atol": 2e-4}
    np.testing.assert_allclose(affine(x, weight, bias).double().numpy(), x64 @ weight64.T + bias64, **close)
    np.testing.assert_allclose(times(slope, weight).double().numpy(), slope64 @ weight64, **close)
    add_outer(total, slope, x)
    np.testing.assert_allclose(total.double().numpy(), total64 + slope64.T @ x64, **close)
