"""A run looks its prompt up once: layers that see nothing but the prompt are called as often for many steps as for one."""

import pytest
import torch

from unnoise.blueprint import Blueprint
from unnoise.codecs.identity import IdentityCodec
from unnoise.conditioning.label import LabelConditioning
from unnoise.data.base import Spec
from unnoise.guidance.base import Guided
from unnoise.guidance.classifier_free import ClassifierFreeGuidance
from unnoise.model import Model, SamplingSettings
from unnoise.nn.base import networks
from unnoise.process.flow import FlowSchedule

NETWORKS = {
    "dit": {"width": 16, "depth": 3, "heads": 2, "patch": 2, "context": 6, "pooled": 3},
    "latent_unet": {"width": 8, "multipliers": [1, 2], "blocks": 1, "attention": [0, 1], "heads": 2, "context": 6},
    "mmdit": {"width": 16, "depth": 2, "heads": 2, "context": 6, "pooled": 3},
    "flux": {"width": 16, "heads": 2, "double_blocks": 1, "single_blocks": 1, "context": 6, "guidance": True},
}


@pytest.fixture(params=NETWORKS)
def prompted(request, monkeypatch):
    """A model whose labels are a prompt of five tokens, the last of them hidden, and that prompt for two samples."""
    spec = Spec("image", (2, 8, 8), ("a", "b"))
    choice = networks.build({"name": request.param, **NETWORKS[request.param]})
    blueprint = Blueprint(spec, IdentityCodec.pixels(), FlowSchedule(), "velocity", 0.7, False, choice)
    made = Model(blueprint, blueprint.build(3), SamplingSettings(steps=4))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in made.denoiser.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    words = torch.randn(2, 5, 6, generator=generator)
    mask = (torch.arange(5) < 4).expand(2, -1)
    prompt = {"context": words, "context_mask": mask}
    monkeypatch.setattr(LabelConditioning, "condition", lambda self, labels: prompt)
    return made, prompt


def counted(model):
    """Calls of the layers that see nothing but a prompt, one entry each, and how many such layers there are."""
    calls = []
    layers = [module for name, module in model.denoiser.named_modules() if name.endswith(("project_context", ".read"))]
    for layer in layers:
        layer.register_forward_hook(lambda *_: calls.append(1))
    assert layers
    return calls, len(layers)


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_keys_and_values_are_made_once_and_not_in_every_step(prompted, guidance, sampler):
    model, _ = prompted
    calls, layers = counted(model)
    for steps in (1, 7):
        model.sample(2, label="a", guidance=guidance, sampler=sampler, steps=steps)
        assert len(calls) == 2 * layers  # those of the prompt, and those of the null condition
        calls.clear()


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_samples_are_those_that_forget_everything_to_a_millionth(prompted, guidance, monkeypatch):
    model, _ = prompted
    with torch.no_grad():
        next(b for name, b in model.denoiser.named_buffers() if name.endswith("null_context")).normal_()
    found = next(reversed(list(model.previews(2, label="a", guidance=guidance)))).x
    calls, layers = counted(model)
    monkeypatch.setattr(type(model.denoiser), "remember", lambda self, cond: cond)
    expected = next(reversed(list(model.previews(2, label="a", guidance=guidance)))).x
    assert len(calls) > 2 * layers
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


def test_a_negative_prompt_of_another_length_is_remembered_too(prompted):
    model, cond = prompted
    x, t = torch.randn(2, 2, 8, 8), torch.tensor(0.6, dtype=torch.float64)
    negative = {"context": torch.randn(2, 9, 6)}
    rule, denoiser = ClassifierFreeGuidance(3.0), model.denoiser
    with torch.no_grad():
        wanted, unwanted = denoiser(x, t, cond), denoiser(x, t, negative)
        expected = unwanted + 3 * (wanted - unwanted)
        torch.testing.assert_close(Guided(denoiser, rule, negative)(x, t, cond), expected, rtol=1e-4, atol=1e-4)
        guided = Guided(denoiser, rule, denoiser.remember(negative))
        kept = guided.remember(cond)
        calls, _ = counted(model)
        torch.testing.assert_close(guided(x, t, kept), expected, rtol=1e-4, atol=1e-4)
    assert not calls
