"""Peers of interpolants: torchdiffeq on an exact flow, and training with torchcfm's matcher in PyTorch."""

import numpy
from offprint_peer import serve


def exact_flow(inputs, settings):
    import torch
    from torchdiffeq import odeint

    tensor = {name: torch.tensor(value, dtype=torch.float64) for name, value in inputs.items()}
    x = tensor["x"]
    # All pairs of components.
    m0 = tensor["means0"].reshape(-1, 1)
    m1 = tensor["means1"].reshape(1, -1)
    v0 = tensor["variances0"].reshape(-1, 1)
    v1 = tensor["variances1"].reshape(1, -1)

    def velocity(t, x):
        a, b = 1 - t, t
        mean = (a * m0 + b * m1).reshape(1, -1)
        rate = (m1 - m0).reshape(1, -1)
        variance = (a * a * v0 + b * b * v1 + t * (1 - t)).reshape(1, -1)
        motion = (-a * v0 + b * v1 + 0.5 * (1 - 2 * t)).reshape(1, -1)
        apart = x - mean
        weights = torch.softmax(-0.5 * (apart**2 / variance + torch.log(variance)), dim=1)
        return (weights * (rate + motion / variance * apart)).sum(dim=1, keepdim=True)

    def work():
        with torch.no_grad():
            times = torch.linspace(0, 1, settings["steps"] + 1, dtype=torch.float64)
            # "rk4" is the 3/8 rule, of the same order and number of calls.
            ends = odeint(velocity, x, times, method="rk4")[-1]
        return [ends.mean().item(), (ends**2).mean().item()]

    return work


def training(inputs, settings):
    import torch
    from torch import nn
    from torchcfm.conditional_flow_matching import ConditionalFlowMatcher

    data, x0, x1, t = (torch.tensor(inputs[name], dtype=torch.float32) for name in ("data", "x0", "x1", "t"))
    width, depth, batch = settings["width"], settings["depth"], settings["batch"]

    def work():
        torch.manual_seed(settings["seed"])
        layers, size = [], 3
        for _ in range(depth):
            layers += [nn.Linear(size, width), nn.ReLU()]
            size = width
        network = nn.Sequential(*layers, nn.Linear(size, 2))
        optimiser = torch.optim.Adam(network.parameters(), lr=settings["learning_rate"])
        matcher = ConditionalFlowMatcher(sigma=0.0)
        for _ in range(settings["steps"]):
            ends = data[torch.randint(len(data), (batch,))]
            time, place, wanted = matcher.sample_location_and_conditional_flow(torch.randn_like(ends), ends)
            optimiser.zero_grad()
            found = network(torch.cat([place, time[:, None]], dim=1))
            ((found - wanted) ** 2).sum(dim=1).mean().backward()
            optimiser.step()
        with torch.no_grad():
            place = (1 - t)[:, None] * x0 + t[:, None] * x1
            found = network(torch.cat([place, t[:, None]], dim=1))
            return [((found - (x1 - x0)) ** 2).sum(dim=1).mean().item()]

    return work


serve(
    {"exact-flow": exact_flow, "training": training},
    versions=["numpy", "torch", "torchdiffeq", "torchcfm"],
)
