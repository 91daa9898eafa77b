"""Peers of lightsb: the authors' training recipe in PyTorch, and Sinkhorn in POT and ott-jax.

The recipe follows github.com/ngushchin/LightSB (MIT), written anew: the potential is a
torch.distributions mixture, log C one broadcast product, Adam with a constant rate, float32, fresh random minibatches.
"""

import numpy
from offprint_peer import serve


def training(inputs, settings):
    import torch
    from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

    x0, x1 = (torch.tensor(inputs[name], dtype=torch.float32) for name in ("x0", "x1"))
    epsilon, count = settings["epsilon"], settings["components"]

    def losses(log_alpha_scaled, r, log_s, x, y):
        log_alpha, s = log_alpha_scaled / epsilon, torch.exp(log_s)
        mixture = MixtureSameFamily(
            Categorical(logits=log_alpha), Independent(Normal(r, torch.sqrt(epsilon * s)), 1)
        )
        log_v = mixture.log_prob(y) + torch.logsumexp(log_alpha, dim=-1)
        x_s_x = (x[:, None, :] * s[None] * x[:, None, :]).sum(dim=-1)
        x_r = (x[:, None, :] * r[None]).sum(dim=-1)
        log_c = torch.logsumexp((x_s_x + 2 * x_r) / (2 * epsilon) + log_alpha[None], dim=-1)
        return log_c.mean() - log_v.mean()

    def work():
        torch.manual_seed(settings["seed"])
        dim, batch = x0.shape[1], settings["batch"]
        log_alpha = (epsilon * torch.log(torch.ones(count) / count)).requires_grad_()
        r = x1[torch.randperm(len(x1))[:count]].clone().requires_grad_()
        log_s = torch.log(settings["initial_spread"] * torch.ones(count, dim)).requires_grad_()
        optimiser = torch.optim.Adam([log_alpha, r, log_s], lr=settings["learning_rate"])
        for _ in range(settings["steps"]):
            optimiser.zero_grad()
            x = x0[torch.randint(len(x0), (batch,))]
            y = x1[torch.randint(len(x1), (batch,))]
            losses(log_alpha, r, log_s, x, y).backward()
            optimiser.step()
        with torch.no_grad():
            parts = [
                losses(log_alpha, r, log_s, x, y) * len(x) / len(x0)
                for x, y in zip(x0.split(1000), x1.split(1000))
            ]
            return [sum(parts).item()]

    return work


def pot(inputs, settings):
    import ot

    x, y = inputs["x0"], inputs["x1"]
    a, b = (numpy.full(len(z), 1 / len(z)) for z in (x, y))

    def work():
        cost = 0.5 * ot.dist(x, y)
        plan = ot.sinkhorn(
            a, b, cost, reg=settings["epsilon"], method="sinkhorn_log", stopThr=settings["tolerance"], numItermax=100000
        )
        return [(plan * cost).sum()]

    return work


def ott(inputs, settings):
    import jax

    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp
    from ott.geometry import costs, pointcloud
    from ott.solvers import linear

    x, y = jnp.array(inputs["x0"]), jnp.array(inputs["x1"])

    @jax.jit
    def solve(x, y):
        # Their cost has no factor ½, hence 2 ε.
        geometry = pointcloud.PointCloud(x, y, cost_fn=costs.SqEuclidean(), epsilon=2 * settings["epsilon"])
        plan = linear.solve(geometry, threshold=settings["tolerance"], max_iterations=100000).matrix
        return (plan * geometry.cost_matrix).sum() / 2

    solve(x, y).block_until_ready()  # compilation is not part of the work

    return lambda: [float(solve(x, y))]


serve(
    {
        "benchmark-d16": training,
        "swiss-roll": training,
        "latents-d512": training,
        "sinkhorn-pot": pot,
        "sinkhorn-ott": ott,
    },
    versions=["numpy", "torch", "POT", "ott-jax"],
)
