"""UniPC as `diffusers` has it, on points in double precision: order 3, bh1, the same places (9 steps hit whole table entries).

`network` asks the digits' network, from the same weights; `training` trains it as its recipe says.
"""

import os

import torch
from diffusers import UniPCMultistepScheduler
from offprint_peer import serve

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


def scheduler(steps):
    made = UniPCMultistepScheduler(
        num_train_timesteps=1000,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        solver_order=3,
        solver_type="bh1",
        predict_x0=True,
        lower_order_final=True,
        prediction_type="sample",
        timestep_spacing="linspace",
        final_sigmas_type="sigma_min",
    )
    made.set_timesteps(steps)
    return made


def sample(start, steps, denoise):
    """The whole run; `denoise` gives the clean data behind y = x/α at noise τ = σ/α."""
    made = scheduler(steps)
    x = start
    with torch.no_grad():
        for i, t in enumerate(made.timesteps):
            tau = made.sigmas[i].double()
            alpha = 1 / torch.sqrt(1 + tau * tau)
            x = made.step(denoise(x / alpha, tau), t, x).prev_sample
    return [x[0, 0], x[-1, -1], (x * x).mean()]


def steps(inputs, settings):
    start, v = torch.from_numpy(inputs["start"].copy()), settings["variance"]
    return lambda: sample(start, settings["steps"], lambda y, tau: y * (v / (v + tau * tau)))


def mixture(inputs, settings):
    start, v = torch.from_numpy(inputs["start"].copy()), settings["variance"]
    centres = torch.from_numpy(inputs["centres"].copy())

    def denoise(y, tau):
        total = v + tau * tau
        weights = torch.softmax(-0.5 * torch.cdist(y, centres) ** 2 / total, dim=1)
        return (v / total) * y + (tau * tau / total) * (weights @ centres)

    return lambda: sample(start, settings["steps"], denoise)


FREQUENCIES = torch.logspace(0, 2, 16, dtype=torch.float64)


def coefficients(tau):
    """EDM's c_skip, c_out, c_in for data of deviation 1/2."""
    norm = 0.25 + tau * tau
    return 0.25 / norm, 0.5 * tau / norm.sqrt(), 1 / norm.sqrt()


def waves(tau):
    """Cosines and sines of ln(tau)/4, one row a level."""
    angles = tau.log()[..., None] / 4 * FREQUENCIES.to(tau.dtype)
    return torch.cat([angles.cos(), angles.sin()], dim=-1).float()


def perceptron(width=256, inputs=64 + 32 + 10):
    sizes = [inputs, width, width, width, 64]
    layers = []
    for i, (a, b) in enumerate(zip(sizes, sizes[1:])):
        layers += [torch.nn.Linear(a, b)] + ([torch.nn.SiLU()] if i < 3 else [])
    return torch.nn.Sequential(*layers)


def network(inputs, settings):
    start, flat = torch.from_numpy(inputs["start"].copy()), torch.from_numpy(inputs["parameters"].copy())
    net = perceptron()
    torch.nn.utils.vector_to_parameters(flat, net.parameters())
    assert [list(p.shape) for p in net.parameters()] == settings["shapes"]
    no_class = torch.zeros(len(start), settings["classes"])

    def denoise(y, tau):
        skip, out, scale = coefficients(tau)
        point = torch.cat([(scale * y).float(), waves(tau).expand(len(y), -1), no_class], dim=1)
        return skip * y + out * net(point).double()

    return lambda: sample(start, settings["steps"], denoise)


def training(inputs, settings):
    data = torch.from_numpy(inputs["data"].copy()).float()
    classes = torch.nn.functional.one_hot(torch.from_numpy(inputs["labels"].copy()), 10).float()
    steps, batch = settings["steps"], settings["batch"]

    def work():
        torch.manual_seed(0)
        net = perceptron()
        for layer in net[::2]:
            torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            torch.nn.init.zeros_(layer.bias)
        parameters = list(net.parameters())
        adam = torch.optim.Adam(parameters, lr=2e-3)
        rate = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
        mean = [p.detach().clone() for p in parameters]
        losses = []
        for _ in range(steps):
            rows = torch.randint(len(data), (batch,))
            x0, seen = data[rows], classes[rows] * (torch.rand(batch, 1) >= 0.1)
            tau = (1.2 * torch.randn(batch) - 1.2).exp()
            y = x0 + tau[:, None] * torch.randn(batch, 64)
            skip, out, scale = (c[:, None] for c in coefficients(tau))
            loss = torch.nn.functional.mse_loss(net(torch.cat([scale * y, waves(tau), seen], dim=1)), (x0 - skip * y) / out)
            adam.zero_grad()
            loss.backward()
            adam.step()
            rate.step()
            torch._foreach_lerp_(mean, [p.detach() for p in parameters], 0.001)
            losses.append(loss.detach())
        return [torch.stack(losses[steps * 2 // 3 :]).mean()]

    return work


serve({"steps": steps, "mixture": mixture, "network": network, "training": training}, versions=["diffusers", "torch"])
