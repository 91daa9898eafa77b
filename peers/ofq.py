"""Training of a quantised vision transformer as one writes it in PyTorch: StatsQ, LSQ for the edges, plain and QKR."""

import torch
import torch.nn.functional as F
from offprint_peer import serve


class StatsQ(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bits):
        n = 2 ** (bits - 1)
        scale = (2 * w.abs().mean(dim=-1, keepdim=True)).clamp_min(1e-8)
        position = (w / scale).clamp(-1, 1 - 1e-6) * n - 0.5
        return scale * (position.round() + 0.5) / n

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


def lsq(w, step, bits=8):
    """A weight with one learned step a row."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    rows = w.reshape(w.shape[0], -1)
    slow = 1 / (rows.shape[1] * high) ** 0.5
    step = step.clamp_min(1e-5)
    step = (step * slow + (step - step * slow).detach()).unsqueeze(1)
    code = (rows / step).clamp(low, high)
    code = code + (code.round() - code).detach()
    return (code * step).reshape(w.shape)


def first_step(w, bits=8):
    return 2 * w.reshape(w.shape[0], -1).abs().mean(1) / (2 ** (bits - 1) - 1) ** 0.5


class Net:
    def __init__(self, flat, settings):
        self.p, start = {}, 0
        for param in settings["params"]:
            count = 1
            for size in param["shape"]:
                count *= size
            part = flat[start : start + count].reshape(param["shape"]).clone()
            self.p[param["name"]] = part.requires_grad_()
            start += count
        self.steps = {
            name: first_step(self.p[f"{name}.weight"].detach()).requires_grad_() for name in ("patch_embed.proj", "head")
        }
        self.heads, self.bits, self.patch = settings["heads"], settings["bits"], settings["patch"]
        self.qkr = settings["qkr"]
        self.depth = sum(name.endswith("mlp.fc1.weight") for name in self.p)

    def parameters(self):
        return list(self.p.values()) + list(self.steps.values())

    def linear(self, name, x):
        return F.linear(x, StatsQ.apply(self.p[f"{name}.weight"], self.bits), self.p[f"{name}.bias"])

    def norm(self, name, x):
        return F.layer_norm(x, x.shape[-1:], self.p[f"{name}.weight"], self.p[f"{name}.bias"], 1e-6)

    def attention(self, name, x):
        n, tokens, width = x.shape
        d = width // self.heads
        weight, bias = self.p[f"{name}.qkv.weight"], self.p[f"{name}.qkv.bias"]
        split = lambda y: y.reshape(n, tokens, self.heads, -1).transpose(1, 2)
        if self.qkr:
            q, k = (weight[i * width : (i + 1) * width].reshape(self.heads, d, width) for i in (0, 1))
            product = StatsQ.apply((q.transpose(1, 2) @ k).reshape(self.heads * width, width), self.bits)
            logits = x.unsqueeze(1) @ split(F.linear(x, product)).transpose(2, 3)
            v = F.linear(x, StatsQ.apply(weight[2 * width :], self.bits), bias[2 * width :])
        else:
            q, k, v = F.linear(x, StatsQ.apply(weight, self.bits), bias).chunk(3, dim=-1)
            logits = split(q) @ split(k).transpose(2, 3)
        seen = torch.softmax(logits / d**0.5, dim=-1) @ split(v)
        return self.linear(f"{name}.proj", seen.transpose(1, 2).reshape(n, tokens, width))

    def __call__(self, images):
        weight = lsq(self.p["patch_embed.proj.weight"], self.steps["patch_embed.proj"])
        x = F.conv2d(images, weight, self.p["patch_embed.proj.bias"], stride=self.patch)
        x = x.flatten(2).transpose(1, 2) + self.p["pos_embed"]
        for i in range(self.depth):
            x = x + self.attention(f"blocks.{i}.attn", self.norm(f"blocks.{i}.norm1", x))
            hidden = F.gelu(self.linear(f"blocks.{i}.mlp.fc1", self.norm(f"blocks.{i}.norm2", x)))
            x = x + self.linear(f"blocks.{i}.mlp.fc2", hidden)
        x = self.norm("norm", x).mean(1)
        return F.linear(x, lsq(self.p["head.weight"], self.steps["head"]), self.p["head.bias"])


def training(inputs, settings):
    weights, images = (torch.from_numpy(inputs[name].copy()) for name in ("weights", "images"))
    classes = torch.from_numpy(inputs["classes"].copy()).long()

    def work():
        net = Net(weights, settings)
        adam = torch.optim.Adam(net.parameters(), lr=settings["rate"])
        losses = []
        for x, y in zip(images.split(settings["batch"]), classes.split(settings["batch"])):
            loss = F.cross_entropy(net(x), y)
            adam.zero_grad()
            loss.backward()
            adam.step()
            losses.append(loss.item())
        return losses

    return work


def levels(inputs, settings):
    weights = torch.from_numpy(inputs["weights"].copy())

    def work():
        with torch.no_grad():
            values = StatsQ.apply(weights, settings["bits"])
            return [values[0, 0].item(), values[-1, -1].item(), values.sum().item() / 1e3]

    return work


serve({"train-plain": training, "train-qkr": training, "levels": levels}, versions=["torch"])
