"""Steps of AdaDFQ in PyTorch, from its equations: a generator's step, then a quantised network's."""

import math

import torch
import torch.nn.functional as F
from offprint_peer import serve


def unpacked(flat, layout):
    """Named tensors out of one vector."""
    named, start = {}, 0
    for name, shape in layout:
        size = math.prod(shape)
        named[name] = torch.from_numpy(flat[start : start + size].copy()).reshape(shape)
        start += size
    return named


def fake(x, low, high, bits):
    """Levels between low and high, straight-through gradient."""
    scale = ((high - low) / (2**bits - 1)).clamp(min=1e-8)
    zero = torch.round(-low / scale)
    q = ((torch.round(x / scale) + zero).clamp(0, 2**bits - 1) - zero) * scale
    return x + (q - x).detach()


class Network:
    """The digits network, float or quantised."""

    strides = (1, 2, 1, 2)

    def __init__(self, tensors, bits=None):
        self.t, self.bits, self.ranges = tensors, bits, {}
        self.observing, self.frozen = False, False

    def weight(self, name):
        w = self.t[name]
        if self.frozen:
            w = w.detach()
        if self.bits is None:
            return w
        rows = w.detach().flatten(1)
        shape = (-1,) + (1,) * (w.dim() - 1)
        return fake(w, rows.amin(1).reshape(shape), rows.amax(1).reshape(shape), self.bits)

    def rectified(self, name, x):
        x = F.relu(x)
        if self.bits is None:
            return x
        if self.observing:
            low, high, weight = self.ranges.get(name, (0.0, 0.0, 0.0))
            mix = lambda old, new: 0.9 * old + 0.1 * new
            self.ranges[name] = (mix(low, x.detach().min()), mix(high, x.detach().max()), mix(weight, 1.0))
        low, high, weight = self.ranges[name]
        return fake(x, low / weight, high / weight, self.bits)

    def __call__(self, x, seen=None):
        for i, stride in enumerate(self.strides, 1):
            y = F.conv2d(x, self.weight(f"conv{i}.weight"), None, stride, 1)
            if seen is not None:
                seen.append((i, y))
            n = f"bn{i}."
            y = F.batch_norm(
                y, self.t[n + "running_mean"], self.t[n + "running_var"], self.t[n + "weight"], self.t[n + "bias"]
            )
            x = self.rectified(f"relu{i}", y + x if i == 3 else y)
        return F.linear(x.mean((2, 3)), self.weight("fc.weight"), self.t["fc.bias"])


class Generator:
    def __init__(self, tensors, side):
        self.t, self.side = tensors, -(-side // 4)
        self.image = side

    def norm(self, name, x, eps):
        return F.batch_norm(x, None, None, self.t[name + ".weight"], self.t[name + ".bias"], training=True, eps=eps)

    def conv(self, name, x):
        return F.conv2d(x, self.t[name + ".weight"], self.t[name + ".bias"], padding=1)

    def __call__(self, z, labels):
        x = F.linear(F.embedding(labels, self.t["label_emb.weight"]) * z, self.t["l1.weight"], self.t["l1.bias"])
        x = self.norm("norm0", x.reshape(len(x), -1, self.side, self.side), 1e-5)
        for i in (1, 2):
            x = self.conv(f"conv{i}", F.interpolate(x, scale_factor=2))
            x = F.leaky_relu(self.norm(f"norm{i}", x, 0.8), 0.2)
        x = torch.tanh(self.conv("conv3", x))[:, :, : self.image, : self.image]
        return F.batch_norm(x, None, None, training=True)


def entropy(logits):
    log = F.log_softmax(logits, 1)
    return -(log.exp() * log).sum(1)


def adaptability(difference):
    h = entropy(difference)
    least = h.min()
    return (h - least) / (math.log(difference.shape[1]) - least)


def steps(inputs, settings):
    s, batch = settings, settings["batch"]
    z = torch.from_numpy(inputs["z"].copy()).reshape(s["steps"], batch, -1)
    labels = torch.from_numpy(inputs["labels"].copy()).long().reshape(s["steps"], batch)

    def work():
        teacher = Network(unpacked(inputs["teacher"], s["teacher"]))
        quantised = {name: t.clone() for name, t in teacher.t.items()}
        trained = [t.requires_grad_() for name, t in quantised.items() if "running" not in name]
        student = Network(quantised, s["bits"])
        made = {n: t for n, t in unpacked(inputs["generator"], s["generator"]).items() if "running" not in n}
        generator = Generator(made, s["side"])
        adam = torch.optim.Adam([t.requires_grad_() for t in made.values()], s["generator_rate"], (0.5, 0.999))
        sgd = torch.optim.SGD(trained, s["student_rate"], 0.9, nesterov=True, weight_decay=1e-4)
        of_generator, of_student = [], []
        for step in range(s["steps"]):
            y = labels[step]
            images = generator(z[step], y) * s["deviation"] + s["mean"]
            if step == 0:
                student.observing = True
                with torch.no_grad():
                    student(images.detach())
                student.observing = False
            seen = []
            p = teacher(images, seen)
            student.frozen = True
            q = student(images)
            student.frozen = False
            h = adaptability(p - q)
            loss = F.relu(s["lower"] - h).mean() + F.relu(h - s["upper"]).mean()
            loss = loss + s["disagreement"] * F.cross_entropy(p - q, y) + s["agreement"] * F.cross_entropy(p + q, y)
            for i, x in seen:
                mean = (x.mean((0, 2, 3)) - teacher.t[f"bn{i}.running_mean"]).square().mean()
                var = (x.var((0, 2, 3), unbiased=False) - teacher.t[f"bn{i}.running_var"]).square().mean()
                loss = loss + (mean + var) / len(seen)
            adam.zero_grad()
            loss.backward()
            adam.step()
            p, t = p.detach(), s["temperature"]
            sgd.zero_grad()
            lost = -(t * t) * entropy((p - student(images.detach())) / t).mean()
            lost.backward()
            sgd.step()
            of_generator.append(loss.item())
            of_student.append(lost.item())
        return [of_generator[0], of_student[0], sum(of_generator) / len(of_generator)]

    return work


serve({"steps-8": steps, "steps-32": steps}, versions=["torch"])
