"""Products of a matrix with one vector in PyTorch: what a decoder does without quantisation."""

import torch
from offprint_peer import serve


def product(inputs, settings):
    dtype = getattr(torch, settings["dtype"])
    weights = torch.from_numpy(inputs["weights"].copy()).to(dtype)
    x = torch.from_numpy(inputs["x"].copy()).to(dtype)

    def work():
        for _ in range(settings["products"]):
            y = torch.mv(weights, x)
        y = y.double()
        size = y.square().mean().sqrt()
        return [float(y[0] / size), float(y[-1] / size), float(1e3 * size)]

    return work


serve({name: product for name in ["f32", "f16", "w4s50-beside-f32", "w4s50-beside-f16"]}, versions=["torch"])
