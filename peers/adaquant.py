"""AdaQuant's layer step in PyTorch, and its integer programme with PuLP and CBC."""

import numpy
import pulp
import torch
from offprint_peer import serve


class Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.round(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def fake(x, length, minimum, first, last):
    scale = length.clamp(1e-6, 1e5) / (last - first)
    zero = Round.apply(first - minimum / scale).clamp(first, last)
    return (Round.apply((x / scale + zero).clamp(first, last)) - zero) * scale


def layer(inputs, settings):
    weight0, x, y = (torch.from_numpy(inputs[name].copy()) for name in ("weight", "x", "y"))
    first = -(2 ** (settings["bits"] - 1))
    last = first + 2 ** settings["bits"] - 1
    order = torch.from_numpy(numpy.random.default_rng(0).permutation(len(x)))
    held, used = order[: len(x) // 5], order[len(x) // 5 :]

    def work():
        low = weight0.flatten(1).min(1).values.clamp(max=0).reshape(-1, 1, 1, 1)
        high = weight0.flatten(1).max(1).values.clamp(min=0).reshape(-1, 1, 1, 1)
        x_low = x.flatten(1).min(1).values.mean().clamp(max=0)
        x_high = x.flatten(1).max(1).values.mean().clamp(min=0)
        weight = weight0.clone().requires_grad_()
        bias = torch.zeros(len(weight0), requires_grad=True)
        w_range, w_min = (high - low).requires_grad_(), low.clone().requires_grad_()
        x_range, x_min = (x_high - x_low).requires_grad_(), x_low.clone().requires_grad_()
        optimisers = [
            torch.optim.Adam([weight], lr=0.003 * weight0.std().item()),
            torch.optim.Adam([bias], lr=0.01 * y.std().item()),
            torch.optim.Adam([w_range, w_min], lr=0.01 * w_range.mean().item()),
            torch.optim.Adam([x_range, x_min], lr=0.01 * x_range.item()),
        ]

        def loss(rows):
            own = torch.nn.functional.conv2d(
                fake(x[rows], x_range, x_min, first, last),
                fake(weight, w_range, w_min, first, last),
                bias,
                stride=settings["stride"],
                padding=settings["padding"],
            )
            return (own - y[rows]).square().mean()

        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            best = loss(held).item()
        look = max(settings["steps"] // 20, 1)
        for step in range(settings["steps"]):
            rows = used[torch.randperm(len(used), generator=generator)[: settings["batch"]]]
            for optimiser in optimisers:
                optimiser.zero_grad(set_to_none=True)
            loss(rows).backward()
            for optimiser in optimisers:
                optimiser.step()
            with torch.no_grad():
                w_min.clamp_(max=0)
                x_min.clamp_(max=0)
                if (step + 1) % look == 0:
                    best = min(best, loss(held).item())
        return [best**0.5]

    return work


def programme(inputs, settings):
    costs, sizes = inputs["costs"], inputs["sizes"]

    def work():
        problem = pulp.LpProblem("bits", pulp.LpMinimize)
        chosen = [
            [pulp.LpVariable(f"x_{i}_{j}", cat="Binary") for j in range(costs.shape[1])] for i in range(len(costs))
        ]
        pairs = [(i, j) for i in range(len(costs)) for j in range(costs.shape[1])]
        problem += pulp.lpSum(costs[i, j] * chosen[i][j] for i, j in pairs)
        problem += pulp.lpSum(sizes[i, j] * chosen[i][j] for i, j in pairs) <= settings["budget"]
        for row in chosen:
            problem += pulp.lpSum(row) == 1
        problem.solve(pulp.PULP_CBC_CMD(msg=False))
        return [sum(costs[i, j] * chosen[i][j].value() for i, j in pairs)]

    return work


serve({"layer": layer, "programme": programme}, versions=["torch", "PuLP"])
