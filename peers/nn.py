"""The networks of `offprint bench nn` in PyTorch, from the same parameters."""

import os

import torch
import torch.nn.functional as F
from offprint_peer import serve

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


def tensors(inputs, settings, trained):
    """The input, the targets (or none), and the parameters cut from the flat vector."""
    x = torch.from_numpy(inputs["x"]).reshape(settings["input"])
    targets = torch.from_numpy(inputs["targets"]) if "targets" in inputs else None
    flat, parameters, at = torch.from_numpy(inputs["parameters"]), [], 0
    for shape in settings["shapes"]:
        count = torch.Size(shape).numel()
        parameters.append(flat[at : at + count].reshape(shape).clone().requires_grad_(trained))
        at += count
    return x, targets, parameters


def mlp(parameters, x, settings):
    w1, b1, w2, b2, w3, b3 = parameters
    return F.linear(F.relu(F.linear(F.relu(F.linear(x, w1, b1)), w2, b2)), w3, b3)


def transformer(parameters, tokens, settings):
    take = iter(parameters)
    table, positions = next(take), next(take)
    x = F.embedding(tokens, table) + positions
    batch, rows, width = x.shape
    heads = settings["heads"]

    def norm(x):
        return F.layer_norm(x, (width,), next(take), next(take))

    def linear(x):
        return F.linear(x, next(take), next(take))

    for _ in range(settings["layers"]):
        qkv = linear(norm(x)).view(batch, rows, 3, heads, width // heads)
        q, k, v = (qkv[:, :, i].transpose(1, 2) for i in range(3))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + linear(y.transpose(1, 2).reshape(batch, rows, width))
        x = x + linear(F.gelu(linear(norm(x))))
    return linear(norm(x)).flatten(0, 1)


def convnet(parameters, x, settings):
    take = iter(parameters)
    for stride in (1, 1, 2, 1, 2, 1):
        x = F.conv2d(x, next(take), stride=stride, padding=1)
        mean, var = torch.zeros(x.shape[1]), torch.ones(x.shape[1])
        x = F.relu(F.batch_norm(x, mean, var, next(take), next(take), training=True))
    return F.linear(x.mean((2, 3)), next(take), next(take))


def training(logits):
    def prepare(inputs, settings):
        x, targets, parameters = tensors(inputs, settings, trained=True)
        optimizer = torch.optim.Adam(parameters, fused=True)

        def step():
            optimizer.zero_grad()
            loss = F.cross_entropy(logits(parameters, x, settings), targets)
            loss.backward()
            optimizer.step()
            return loss.item()

        return lambda: [step() for _ in range(settings["steps"])]

    return prepare


def inference(inputs, settings):
    x, _, parameters = tensors(inputs, settings, trained=False)

    def work():
        with torch.inference_mode():
            return transformer(parameters, x, settings)[-1, :8].tolist()

    return work


def tanh_mlp(parameters, x):
    *hidden, last = zip(parameters[::2], parameters[1::2])
    for w, b in hidden:
        x = torch.tanh(F.linear(x, w, b))
    return F.linear(x, *last)


def pinn(inputs, settings):
    x, _, parameters = tensors(inputs, settings, trained=True)
    x.requires_grad_(True)
    optimizer = torch.optim.Adam(parameters, fused=True)
    source = torch.sin(3 * x.detach())

    def step():
        optimizer.zero_grad()
        u = tanh_mlp(parameters, x)
        (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        (curvature,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
        loss = (curvature + u * (u**2 - 1) - source).square().mean()
        loss.backward(inputs=parameters)
        optimizer.step()
        return loss.item()

    return lambda: [step() for _ in range(settings["steps"])]


def hessian(inputs, settings):
    x, targets, parameters = tensors(inputs, settings, trained=True)
    v = torch.from_numpy(inputs["v"])
    cut = [part.reshape(p.shape) for part, p in zip(v.split([p.numel() for p in parameters]), parameters)]

    def work():
        loss = F.cross_entropy(tanh_mlp(parameters, x), targets)
        gradients = torch.autograd.grad(loss, parameters, create_graph=True)
        product = torch.cat([p.flatten() for p in torch.autograd.grad(gradients, parameters, cut)])
        return [product.norm().item(), product.dot(v).item()]

    return work


cases = {"mlp": training(mlp), "transformer": training(transformer), "convnet": training(convnet)}
cases |= {"inference": inference, "pinn-f32": pinn, "pinn-f64": pinn, "hessian": hessian}
serve(cases, versions=["torch"])
