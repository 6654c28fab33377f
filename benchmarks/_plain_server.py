"""A plain server, as one writes it in an afternoon: FastAPI, a scheduler of diffusers, and one request after another.

python benchmarks/_plain_server.py MODEL PORT
"""

import base64
import io
import sys
import threading

import torch
import uvicorn
from diffusers import DDIMScheduler
from fastapi import FastAPI
from PIL import Image

from unnoise.model import load
from unnoise.objectives.mse import preconditioned

model = load(sys.argv[1])
network = preconditioned(model.denoiser).network
app, turn = FastAPI(), threading.Lock()


@app.get("/health")
def health():
    return {"status": "ok"}


@app.post("/generate")
def generate(asked: dict):
    """One image by classifier-free guidance, both predictions in one call, as pipelines of diffusers do it."""
    scheduler = DDIMScheduler(num_train_timesteps=1000, prediction_type="v_prediction", timestep_spacing="trailing")
    scheduler.set_timesteps(asked["steps"])
    x = torch.randn(1, *model.spec.shape, generator=torch.Generator().manual_seed(asked["seed"]))
    label = torch.tensor([asked["label"], model.spec.num_classes])
    with turn, torch.no_grad():
        for t in scheduler.timesteps:
            both = network(torch.cat([x, x]), t.float().expand(2), {"label": label})
            wanted, unwanted = both.chunk(2)
            x = scheduler.step(unwanted + asked["guidance"] * (wanted - unwanted), t, x).prev_sample
    pixels = ((x[0] + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels[0].numpy()).save(buffer, "PNG")
    return {"data": [{"b64_json": base64.b64encode(buffer.getvalue()).decode()}]}


uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="error")
