"""Peers of pfgmpp: the exact denoiser in numpy, k-diffusion's Heun sampler in PyTorch over it, and scipy's Student t.

`heun-edm` and `heun-d128` call k_diffusion.sampling.sample_heun where that package is installed, else the same steps in
plain PyTorch; the denoiser is a torch module over the same data. All in float64, as ours.
"""

import numpy
from offprint_peer import serve


def denoise(inputs, settings):
    data, y = inputs["data"], inputs["y"]
    d, sigma = settings["d"], settings["sigma"]
    squares = (data**2).sum(axis=1)

    def work():
        distance = (y**2).sum(axis=1)[:, None] + squares - 2 * y @ data.T
        logits = -(data.shape[1] + d) / 2 * numpy.log1p(numpy.maximum(distance, 0) / (sigma**2 * d))
        weights = numpy.exp(logits - logits.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        return (weights @ data).ravel()[: settings["shown"]]

    return work


def heun(inputs, settings):
    import torch

    data, start = (torch.tensor(inputs[name], dtype=torch.float64) for name in ("data", "start"))
    squares = (data**2).sum(dim=1)
    d = settings["d"]

    class Exact(torch.nn.Module):
        def forward(self, x, sigma):
            level = sigma[:, None]
            distance = ((x**2).sum(dim=1, keepdim=True) + squares - 2 * x @ data.T).clamp(min=0)
            if d is None:
                logits = -distance / (2 * level**2)
            else:
                logits = -(data.shape[1] + d) / 2 * torch.log1p(distance / (level**2 * d))
            return torch.softmax(logits, dim=1) @ data

    ramp = torch.linspace(0, 1, settings["steps"], dtype=torch.float64)
    sigmas = (80 ** (1 / 7) + ramp * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    sigmas = torch.cat([sigmas, sigmas.new_zeros(1)])
    model = Exact()
    try:
        from k_diffusion.sampling import sample_heun
    except ImportError:
        sample_heun = plain_heun

    def work():
        with torch.no_grad():
            return sample_heun(model, start.clone(), sigmas, disable=True).flatten()[: settings["shown"]].tolist()

    return work


def plain_heun(model, x, sigmas, disable=True):
    ones = x.new_ones(len(x))
    for now, following in zip(sigmas[:-1], sigmas[1:]):
        slope = (x - model(x, now * ones)) / now
        step = following - now
        if following == 0:
            return x + slope * step
        end = x + slope * step
        x = x + (slope + (end - model(end, following * ones)) / following) / 2 * step
    return x


def student(inputs, settings):
    from scipy.stats import multivariate_t

    dim = settings["dim"]
    law = multivariate_t(loc=numpy.zeros(dim), shape=numpy.eye(dim), df=settings["d"], seed=1)

    def work():
        return [(numpy.abs(law.rvs(settings["n"])) > 3).mean()]

    return work


serve(
    {"denoise": denoise, "heun-edm": heun, "heun-d128": heun, "student": student},
    versions=["numpy", "torch", "scipy"],
)
