#!/usr/bin/env python3
"""Trains cxr-screen on projections of phantoms (radiographs.py) and writes cxr-screen.onnx. Everything follows from the seed.

usage: train.py WORK [--output FILE] [--render-only]

WORK is a folder for the cached projections and images (made once, two files a patient) and the checkpoint `last.pt`, from which a stopped
training goes on. On two shared cores: projections half an hour, images a few minutes, and so is the training. The seed gives the same samples everywhere; the weights are the same to the last bit only with the same PyTorch, processor and number
of threads, since sums are taken in another order otherwise.
"""
import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

import network
import radiographs

SEED = 1                                # patients 10000 SEED to 10000 SEED + PATIENTS - 1; evaluate.py takes others
PATIENTS, VIEWS, COPIES = 260, 8, 3     # projections of a patient, each with findings of its own; images of each
BATCH, STEPS, WARM_UP = 24, 600, 60
HORIZON, COOL_DOWN = 1500, 100          # the rate of learning falls as half a cosine of so many steps, and to 0 over the last ones
SHIFT = 5                               # pixels that images are moved by at most, once more at each use
RATE, DECAY, KEEP = 3e-3, 2e-2, 0.99    # of the running mean of weights, which is what is exported


def render(work, seed, views):
    """Caches projections and truth of one patient."""
    path = work / f"{seed}.npz"
    if path.exists():
        return
    chest = radiographs.body(seed)
    made = [radiographs.view(chest, seed, n) for n in range(views)]
    part = path.with_suffix(".part.npz")
    np.savez(part, integrals=np.stack([m[0] for m in made]).astype(np.float16), truth=np.array([m[1] for m in made]))
    part.rename(path)


def render_all(work, seeds, views):
    work.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(render, [work] * len(seeds), seeds, [views] * len(seeds)))
    loaded = [np.load(work / f"{seed}.npz") for seed in seeds]
    return [(one["integrals"], one["truth"]) for one in loaded]


def acquire(work, seed):
    """Caches the images of one patient: [VIEWS * COPIES, SIZE, SIZE], 0 to 255."""
    path = work / f"{seed}.images.npy"
    if path.exists():
        return
    rng = np.random.default_rng([seed, 50])
    integrals = np.load(work / f"{seed}.npz")["integrals"].astype(np.float32)
    images = [radiographs.prepared(radiographs.acquire(one, rng)) for one in integrals for _ in range(COPIES)]
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.save(file, (np.stack(images) * 255).round().astype(np.uint8))
    part.rename(path)


def acquire_all(work, seeds):
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(acquire, [work] * len(seeds), seeds))
    return np.concatenate([np.load(work / f"{seed}.images.npy") for seed in seeds])


def batch(images, truth, rng):
    """(input [BATCH, 1, SIZE, SIZE], truth [BATCH, findings]): moved, and with another curve of grey."""
    chosen = rng.integers(0, len(images), BATCH)
    made = np.empty((BATCH, 1, *images.shape[1:]), np.float32)
    for out, n in zip(made, chosen):
        moved = np.roll(images[n], rng.integers(-SHIFT, SHIFT + 1, 2), (0, 1)).astype(np.float32) / 255
        out[0] = moved ** np.float32(rng.uniform(0.7, 1.4))
    return torch.from_numpy(made), torch.from_numpy(truth[chosen])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "cxr-screen.onnx")
    parser.add_argument("--render-only", action="store_true")
    options = parser.parse_args()
    seeds = range(10_000 * SEED, 10_000 * SEED + PATIENTS)
    patients = render_all(options.work, seeds, VIEWS)
    if options.render_only:
        return
    images = acquire_all(options.work, seeds)
    truth = np.repeat(np.concatenate([one[1] for one in patients]), COPIES, 0).astype(np.float32)
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    net, mean = (network.Network().to(memory_format=torch.channels_last) for _ in range(2))
    mean.load_state_dict(net.state_dict())
    optimiser = torch.optim.AdamW(net.parameters(), RATE, weight_decay=DECAY)
    parts = {"net": net, "mean": mean, "optimiser": optimiser}
    first, last = 0, options.work / "last.pt"
    if last.exists():
        state = torch.load(last)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        first = state["step"]
    started, total = time.time(), 0.0
    for step in range(first, STEPS):
        rng = np.random.default_rng([SEED, 51, step])
        torch.manual_seed(SEED * 1_000_000 + step)
        seen, wanted = batch(images, truth, rng)
        net.train()
        logits = net(seen.to(memory_format=torch.channels_last))
        loss = functional.binary_cross_entropy_with_logits(logits, wanted)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 2.0)
        rate = min((step + 1) / WARM_UP, 0.5 * (1 + np.cos(np.pi * step / HORIZON)), (STEPS - step) / COOL_DOWN)
        optimiser.param_groups[0]["lr"] = float(RATE * rate)
        optimiser.step()
        with torch.no_grad():
            keep = min(KEEP, (step + 1) / (step + 10))
            for a, b in zip(mean.state_dict().values(), net.state_dict().values()):
                a.mul_(keep).add_(b, alpha=1 - keep) if a.dtype.is_floating_point else a.copy_(b)
        total += loss.item()
        if (step + 1) % 25 == 0:
            print(f"step {step + 1}: loss {total / 25:.4f}; {time.time() - started:.0f} s", flush=True)
            total = 0.0
        if (step + 1) % 100 == 0 or step + 1 == STEPS:
            torch.save({**{name: part.state_dict() for name, part in parts.items()}, "step": step + 1}, last)
    mean.eval()
    network.export(mean, options.output)
    print(f"{options.output}: {options.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
