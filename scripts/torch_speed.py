"""Images per second of mean_flow on song_unet: one training step here, and of the same network in PyTorch, eager.

    python scripts/torch_speed.py --rounds=5 --out=torch_speed.json

Run it in the root of the repository, with the Python of an environment that has PyTorch; --jax names the Python of this
project. The two take turns on the same cores: each round measures both. First --golden, song_unet.npz of the reference
files, checks the network in PyTorch; without it nothing does.
"""

import argparse
import copy
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
import zlib

WIDTH, BATCH, STEPS, SIZE, MULT, BLOCKS, ATTENTION = 32, 32, 3, 32, (2, 2, 2), 4, 16


def network(torch, size=SIZE, channels=WIDTH, mult=MULT, blocks=BLOCKS, attention=ATTENTION, augment=6):
    """The network of `sgflow_jax.models.song_unet` in PyTorch, with the names of released files: net(x, t, h, label)
    for images [B, C, H, W], times from data to noise and lengths of jumps."""
    nn, F = torch.nn, torch.nn.functional
    embedded = 4 * channels
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    kernel = torch.outer(taps, taps) / 64

    def down(x):
        return F.conv2d(x, kernel.expand(x.shape[1], 1, 4, 4), stride=2, padding=1, groups=x.shape[1])

    def up(x):
        return F.conv_transpose2d(x, 4 * kernel.expand(x.shape[1], 1, 4, 4), stride=2, padding=1, groups=x.shape[1])

    def norm(features):
        return nn.GroupNorm(min(32, features // 4), features, eps=1e-6)

    class Block(nn.Module):
        def __init__(self, inside, outside, attends=False, resample=None):
            super().__init__()
            self.resample = resample
            self.norm0, self.conv0 = norm(inside), nn.Conv2d(inside, outside, 3, padding=1)
            self.affine = nn.Linear(embedded, outside)
            self.norm1, self.conv1 = norm(outside), nn.Conv2d(outside, outside, 3, padding=1)
            self.skip = nn.Conv2d(inside, outside, 1) if inside != outside or resample else None
            self.norm2 = norm(outside) if attends else None
            if attends:
                self.qkv, self.proj = nn.Conv2d(outside, 3 * outside, 1), nn.Conv2d(outside, outside, 1)

        def forward(self, x, embedding):
            h = F.silu(self.norm0(x))
            if self.resample:
                h, x = self.resample(h), self.resample(x)
            h = self.conv0(h) + self.affine(embedding)[:, :, None, None]
            h = self.conv1(F.silu(self.norm1(h)))
            x = (h + (self.skip(x) if self.skip else x)) * 0.5**0.5
            if self.norm2 is None:
                return x
            q, k, v = self.qkv(self.norm2(x)).flatten(2).chunk(3, dim=1)
            weights = torch.softmax(q.transpose(1, 2) @ k / math.sqrt(q.shape[1]), dim=-1)
            return (x + self.proj((v @ weights.transpose(1, 2)).reshape(x.shape))) * 0.5**0.5

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.map_augment = nn.Linear(augment, embedded, bias=False)
            self.map_layer0, self.map_layer1 = nn.Linear(4 * channels, embedded), nn.Linear(embedded, embedded)
            self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
            here, skips = channels, [channels]
            self.enc[f"{size}x{size}_conv"] = nn.Conv2d(3, channels, 3, padding=1)
            for level, factor in enumerate(mult):
                res = size >> level
                if level:
                    self.enc[f"{res}x{res}_down"] = Block(here, here, resample=down)
                    skips.append(here)
                for i in range(blocks):
                    self.enc[f"{res}x{res}_block{i}"] = Block(here, channels * factor, res == attention)
                    here = channels * factor
                    skips.append(here)
            for level, factor in reversed(list(enumerate(mult))):
                res = size >> level
                if level == len(mult) - 1:
                    self.dec[f"{res}x{res}_in0"] = Block(here, here, True)
                    self.dec[f"{res}x{res}_in1"] = Block(here, here)
                else:
                    self.dec[f"{res}x{res}_up"] = Block(here, here, resample=up)
                for i in range(blocks + 1):
                    attends = i == blocks and res == attention
                    self.dec[f"{res}x{res}_block{i}"] = Block(here + skips.pop(), channels * factor, attends)
                    here = channels * factor
            self.dec[f"{size}x{size}_aux_norm"] = norm(here)
            self.dec[f"{size}x{size}_aux_conv"] = nn.Conv2d(here, 3, 3, padding=1)

        def features(self, s):
            angles = s[:, None] * 1e-4 ** (torch.arange(channels) / (channels - 1))
            return torch.cat([angles.sin(), angles.cos()], dim=1)

        def forward(self, x, t, h, label=None):
            embedding = torch.cat([self.features(t), self.features(h)], dim=1)
            embedding = F.silu(self.map_layer0(embedding + (self.map_augment(label) if label is not None else 0)))
            embedding = F.silu(self.map_layer1(embedding))
            skips = []
            for layer in self.enc.values():
                x = layer(x, embedding) if isinstance(layer, Block) else layer(x)
                skips.append(x)
            for name, layer in self.dec.items():
                if "block" in name:
                    x = torch.cat([x, skips.pop()], dim=1)
                if isinstance(layer, Block):
                    x = layer(x, embedding)
                else:
                    x = layer(F.silu(x) if name.endswith("aux_conv") else x)
            return x

    return Net()


def check(torch, golden):
    """Relative L2 error of the network and its derivative against the small network of the reference file."""
    import numpy as np

    net = network(torch, size=16, channels=32, mult=(1, 2), blocks=1, attention=8)
    state = {}
    for key, like in net.state_dict().items():
        z = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(tuple(like.shape))
        name, _, leaf = key.rpartition(".")
        if "norm" in name.rpartition(".")[2]:
            z = 0.1 * z + (leaf == "weight")
        else:
            z *= 0.05 if leaf == "bias" else math.sqrt(1 / math.prod(like.shape[1:]))
        state[key] = torch.tensor(z, dtype=torch.float32)
    net.load_state_dict(state)
    arrays = {name: torch.tensor(golden[f"small/{name}"]) for name in ("x", "t", "h", "augment", "y", "dx", "dy")}
    x, dx = (arrays[name].permute(0, 3, 1, 2) for name in ("x", "dx"))
    one = torch.ones_like(arrays["t"])
    inputs, tangents = (x, arrays["t"], arrays["h"]), (dx, one, one)
    found = torch.func.jvp(lambda x, t, h: net(x, t, h, arrays["augment"]), inputs, tangents)
    pairs = zip(("y", "dy"), found, strict=True)
    return {
        name: float((a.detach().permute(0, 2, 3, 1) - arrays[name]).norm() / arrays[name].norm()) for name, a in pairs
    }


def torch_steps(torch):
    """A function that takes STEPS training steps in PyTorch: mean_flow with half of the batch on the diagonal, clipped
    gradients, Adam and an average of the parameters, as `configs/cifar10.py:mean_flow` trains."""
    torch.manual_seed(0)
    net = network(torch)
    average = copy.deepcopy(net)
    optimiser = torch.optim.Adam(net.parameters(), lr=2e-4)
    x1 = torch.rand(BATCH, 3, SIZE, SIZE) * 2 - 1

    def step():
        noise = torch.randn_like(x1)
        half = BATCH // 2
        t = torch.rand(BATCH)  # time from data to noise, as in the network
        r = torch.cat([t[:half], t[half:] * torch.rand(half)])
        at = t[:, None, None, None]
        x_t, v = (1 - at) * x1 + at * noise, noise - x1
        on = net(x_t[:half], t[:half], torch.zeros(half)) - v[:half]
        h = (t - r)[half:]
        one = torch.ones(half)
        F, DF = torch.func.jvp(net, (x_t[half:], t[half:], h), (v[half:], one, one))
        off = F - (v[half:] - h[:, None, None, None] * DF).detach()
        loss = torch.cat([on, off]).square().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(net.parameters()), 1e-4)
        return loss.item()

    return lambda: [step() for _ in range(STEPS)]


def jax_side():
    """Takes STEPS training steps for each line of stdin, and prints the seconds they took."""
    import jax

    from configs import cifar10
    from eval.machine.ready_step import Step
    from sgflow_jax.config import fields

    config = cifar10.get_config("mean_flow").unlock()
    config.model = fields.song_unet()
    config.model.channels, config.model.augment_dim = WIDTH, 6
    config.data.batch_size = BATCH
    step = Step(config)
    began = time.perf_counter()
    program = step.lowered.compile()
    compiled = time.perf_counter() - began
    (state, monitor), inputs = step.first(), step.inputs()
    parameters = sum(a.size for a in jax.tree.leaves(state.params))
    told = {"jax": jax.__version__, "compilation_seconds": compiled, "parameters": parameters}
    print(json.dumps(told), flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        for _ in range(STEPS):
            state, monitor = program(state, monitor, step.batch(), *inputs)
        jax.block_until_ready(state)
        print(time.perf_counter() - began, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often each of the two is measured")
    parser.add_argument("--jax", default=".venv/bin/python", help="the Python of this project")
    parser.add_argument("--golden", help="song_unet.npz, to check the network in PyTorch")
    parser.add_argument("--out", help="FILE.json for the result")
    parser.add_argument("--jax_side", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.jax_side:
        return jax_side()

    import torch

    row = {"torch": torch.__version__, "width": WIDTH, "batch": BATCH, "steps": STEPS, "rounds": given.rounds}
    row |= {"cores": len(os.sched_getaffinity(0)), "machine": platform.machine(), "threads": torch.get_num_threads()}
    if given.golden:
        import numpy as np

        row["relative_error"] = check(torch, np.load(given.golden))
    environment = {**os.environ, "PYTHONPATH": "."}
    command = [given.jax, __file__, "--jax_side"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as child:

        def jax_seconds():
            print(file=child.stdin, flush=True)
            return float(child.stdout.readline())

        row |= json.loads(child.stdout.readline())
        steps = torch_steps(torch)
        row["torch_parameters"] = sum(p.numel() for p in network(torch).parameters())

        def torch_seconds():
            began = time.perf_counter()
            steps()
            return time.perf_counter() - began

        sides = {"torch": torch_seconds, "jax": jax_seconds}
        for measure in sides.values():
            measure()  # warm
        found = {name: [] for name in sides}
        for _ in range(given.rounds):
            for name, measure in sides.items():
                found[name].append(measure())
        child.stdin.close()
    for name, seconds in found.items():
        row[f"{name}_seconds"] = seconds
        row[f"{name}_images_per_second"] = BATCH * STEPS / statistics.median(seconds)
    print(json.dumps(row, indent=1))
    if given.out:
        with open(given.out, "w") as file:
            json.dump(row, file, indent=1)


if __name__ == "__main__":
    main()
