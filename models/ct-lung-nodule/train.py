#!/usr/bin/env python3
"""Trains ct-lung-nodule on phantoms (phantoms.py) and writes ct-lung-nodule.onnx. Everything follows from the seed.

usage: train.py WORK [--output FILE] [--weights FILE.onnx] [--steps N]

With --weights the network starts as a published one, and only the second part follows.
WORK is a folder for the rendered boxes (1 GB, made once) and the checkpoint `last.pt`, from which a stopped training goes on.
Two parts: samples from anywhere, then from where the network of then was wrong, found by running it on all boxes. On two quiet cores:
boxes 2 minutes, training about 30. The seed gives the same samples everywhere; the weights are the same to the
last bit only with the same PyTorch, processor and number of threads, since sums are taken in another order otherwise.
"""
import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional

import network
import phantoms
from phantoms import BACKGROUND, LUNG, NODULE

SEED = 1                        # boxes have chests 1000 SEED to 1000 SEED + BOXES - 1; evaluate.py takes others
BOXES, BOX = 128, 112
PATCH, MARGIN = 48, 6
PLACES = (0.45, 0.22, 0.15, 0.18, 0.0)  # share of samples around nodules, lung, air that is no lung, anywhere, and what was wrong
HARD_PLACES = (0.25, 0.1, 0.08, 0.07, 0.5)
WORKERS, BATCH = 2, 2           # copies of the network, each on a thread of its own; samples for each and step
FIRST, STEPS, WARM_UP, COOL_DOWN = 2000, 4400, 60, 400     # the rate of learning rises, stays, falls to 0; and again, lower
MINED = (2000, 2600, 3200, 3800)            # before these steps the network is run on all boxes
FROZEN = FIRST - 200            # from this step on, batch normalisation uses its running statistics, as inference does
RATE, HARD_RATE, DECAY, KEEP = 3e-3, 1.5e-3, 1e-2, 0.99


def make_box(folder, n):
    """One box of one chest: HU (int16) and labels. Its middle is in or near the lungs."""
    torch.set_num_threads(1)
    rng = np.random.default_rng([SEED, 30, n])
    chest = phantoms.Chest(1000 * SEED + n, nodules=int(rng.integers(8, 46)))
    middle = np.array([rng.choice([-1, 1]) * rng.uniform(20, 110), rng.uniform(-50, 50), rng.uniform(-130, 130)])
    origin = middle - (BOX - 1) / 2 * phantoms.SPACING_MM
    hu, label, _ = chest.render((BOX, BOX, BOX), origin)
    np.save(folder / f"hu{n:03}.npy", np.clip(np.rint(hu), -1024, 3071).astype(np.int16))
    np.save(folder / f"label{n:03}.npy", label)


def sample(boxes, rng, shares):
    """(input [PATCH]^3, labels [PATCH]^3): around a nodule, a lung voxel, air that is no lung, anywhere, or where the network was wrong;
    mirrored left to right half of the time."""
    hu, label, places = boxes[rng.integers(len(boxes))]
    chosen = places[rng.choice(len(places), p=shares)]
    side = PATCH + 2 * MARGIN
    if len(chosen):
        at = np.array(np.unravel_index(chosen[rng.integers(len(chosen))], label.shape)) - side // 2 + rng.integers(-18, 19, 3)
    else:
        at = rng.integers(0, BOX, 3)
    at = np.clip(at, 0, BOX - side)
    box = tuple(slice(a, a + side) for a in at)
    image = phantoms.acquire(hu[box].astype(np.float32), rng)
    inner = (slice(MARGIN, -MARGIN),) * 3
    image, mask = network.normalise(image[inner]), label[box][inner]
    if rng.random() < 0.5:
        image, mask = image[:, :, ::-1], mask[:, :, ::-1]
    return image.astype(np.float32), mask.astype(np.int64)


def loss_of(scores, mask):
    """Cross entropy, and one less the Dice overlap of lung and of nodule over the batch."""
    p = torch.softmax(scores, 1)
    dice = 0
    for name, share in ((LUNG, 0.3), (NODULE, 1.0)):
        truth = (mask == name).float()
        dice = dice + share * (1 - (2 * (p[:, name] * truth).sum() + 10) / (p[:, name].sum() + truth.sum() + 10))
    return functional.cross_entropy(scores, mask) + dice, dice


def work_of(net, boxes, step, worker):
    """One worker's share of a step: gradients are left in its copy of the network; (loss, its Dice part)."""
    rng = np.random.default_rng([SEED, 31, step, worker])
    images, masks = zip(*[sample(boxes, rng, PLACES if step < FIRST else HARD_PLACES) for _ in range(BATCH)])
    images = torch.from_numpy(np.stack(images))[:, None].to(memory_format=torch.channels_last_3d)
    net.train()
    if step >= FROZEN:
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm3d):
                module.eval()
    net.zero_grad()
    loss, dice = loss_of(net(images), torch.from_numpy(np.stack(masks)))
    loss.backward()
    return loss.item(), dice.item()


@torch.no_grad()
def wrong_places(net, boxes, step):
    """For each box up to 8 voxels of each thing that `net` calls a nodule where none is near, and of each nodule of which it finds less
    than a third, as one scanner shows them."""
    def of(n):
        hu, label, _ = boxes[n]
        image = network.normalise(phantoms.acquire(hu.astype(np.float32), np.random.default_rng([SEED, 32, step, n]))).astype(np.float32)
        found = net(torch.from_numpy(np.ascontiguousarray(image))[None, None])[0].argmax(0).numpy() == NODULE
        truth = label == NODULE
        false = ndimage.label(found & ~ndimage.binary_dilation(truth, iterations=2))[0]
        which, count = ndimage.label(truth)
        share = np.asarray(ndimage.mean(found, which, np.arange(1, count + 1)))
        missed = np.flatnonzero(share < 1 / 3) + 1
        things = np.where(np.isin(which, missed), which + false.max(), false).ravel()
        some = np.random.default_rng([SEED, 33, step, n]).permutation(np.flatnonzero(things))
        return np.concatenate([some[:0], *[some[things[some] == t][:8] for t in np.unique(things[some])]]).astype(np.int32)
    net.eval()
    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(of, range(len(boxes))))


def rate_at(step, steps):
    if step < FIRST:
        return RATE * min(1, (step + 1) / WARM_UP, (FIRST - step) / COOL_DOWN)
    return HARD_RATE * min(1, (step - FIRST + 1) / WARM_UP, (steps - step) / COOL_DOWN)


@torch.no_grad()
def spread(nets):
    """Copies the first network's weights to the others, and the mean of all running statistics to all."""
    for same in zip(*[n.parameters() for n in nets]):
        for p in same[1:]:
            p.copy_(same[0])
    for same in zip(*[n.buffers() for n in nets]):
        if same[0].dtype.is_floating_point:
            mean = torch.stack(same).mean(0)
            for b in same:
                b.copy_(mean)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "ct-lung-nodule.onnx")
    parser.add_argument("--weights", type=Path, help="of a network that went through the first part: only the second follows")
    parser.add_argument("--steps", type=int, default=STEPS, help="of both parts together (default: %(default)s)")
    options = parser.parse_args()
    work = options.work
    work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    missing = [n for n in range(BOXES) if not (work / f"label{n:03}.npy").exists()]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(make_box, [work] * len(missing), missing))
    boxes = []
    for n in range(BOXES):
        hu, label = np.load(work / f"hu{n:03}.npy"), np.load(work / f"label{n:03}.npy")
        places = (label == NODULE, label == LUNG, (label == BACKGROUND) & (hu < -900), label > NODULE, label > NODULE)     # the last two: nowhere in particular
        boxes.append((hu, label, [np.flatnonzero(p).astype(np.int32) for p in places]))

    torch.manual_seed(SEED)
    nets = [network.Network().to(memory_format=torch.channels_last_3d) for _ in range(WORKERS)]
    if options.weights:
        network.take(nets[0], options.weights)
    mean = network.Network()
    for other in (*nets[1:], mean):
        other.load_state_dict(nets[0].state_dict())
    optimiser = torch.optim.AdamW(nets[0].parameters(), RATE, weight_decay=DECAY)
    parts = {"net": nets[0], "mean": mean, "optimiser": optimiser}
    first, last = FIRST if options.weights else 0, work / "last.pt"
    if last.exists():
        state = torch.load(last)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        for n in nets[1:]:
            n.load_state_dict(state["net"])
        first = state["step"]
    started, total = time.time(), np.zeros(2)
    with ThreadPoolExecutor(WORKERS) as pool:
        for step in range(first, options.steps):
            mined = max((m for m in MINED if m <= step), default=None)
            if mined is not None and (step == first or step == mined):
                file = work / f"wrong{mined}.npz"
                if not file.exists():
                    np.savez_compressed(file, *wrong_places(mean, boxes, step))
                with np.load(file) as wrong:
                    for n, (_, _, places) in enumerate(boxes):
                        places[4] = wrong[f"arr_{n}"]
                print(f"step {step}: {sum(len(b[2][4]) for b in boxes)} places of mistakes", flush=True)
            total += np.mean(list(pool.map(work_of, nets, [boxes] * WORKERS, [step] * WORKERS, range(WORKERS))), 0)
            for same in zip(*[n.parameters() for n in nets]):
                same[0].grad = torch.stack([p.grad for p in same]).mean(0)
            torch.nn.utils.clip_grad_norm_(nets[0].parameters(), 5.0)
            optimiser.param_groups[0]["lr"] = rate_at(step, options.steps)
            optimiser.step()
            spread(nets)
            with torch.no_grad():
                keep = min(KEEP, (step + 1) / (step + 10))
                for a, b in zip(mean.state_dict().values(), nets[0].state_dict().values()):
                    a.mul_(keep).add_(b, alpha=1 - keep) if a.dtype.is_floating_point else a.copy_(b)
            if (step + 1) % 20 == 0:
                print(f"step {step + 1}: loss {total[0] / 20:.4f}, of which Dice {total[1] / 20:.4f}; {time.time() - started:.0f} s", flush=True)
                total[:] = 0
            if (step + 1) % 60 == 0 or step + 1 == options.steps:
                torch.save({**{name: part.state_dict() for name, part in parts.items()}, "step": step + 1}, last)
    mean.eval()
    network.export(mean, options.output)
    print(f"{options.output}: {options.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
