"""Peers of feynman-kac: weighted simulation in numpy, as the authors' notebooks do it in PyTorch, and `particles`.

The simulation follows github.com/martaskrt/fkc-diffusion (MIT), written anew: scores of the mixture by broadcasting, the
target-score SDE, weights, systematic drawing when the effective sample size is low.
"""

import numpy
from offprint_peer import serve


def annealing(inputs, settings):
    levels, beta, count = inputs["levels"], settings["beta"], settings["particles"]
    means, variances, weights = inputs["means"].ravel(), inputs["variances"], inputs["weights"]

    def terms(y, tau):
        variance = variances + tau * tau
        apart = means - y[:, None]
        log = numpy.log(weights / numpy.sqrt(2 * numpy.pi * variance)) - 0.5 * apart * apart / variance
        return log, apart / variance

    def score(y, tau):
        log, slopes = terms(y, tau)
        posterior = numpy.exp(log - log.max(axis=1, keepdims=True))
        posterior /= posterior.sum(axis=1, keepdims=True)
        return (posterior * slopes).sum(axis=1)

    def normalised(log):
        w = numpy.exp(log - log.max())
        return w / w.sum()

    def work():
        rng = numpy.random.default_rng(settings["seed"])
        deviation = levels[0] / numpy.sqrt(beta)
        z = rng.standard_normal(count)
        y = (weights * means).sum() + deviation * z
        log, _ = terms(y, levels[0])
        log_weights = beta * numpy.logaddexp.reduce(log, axis=1) + 0.5 * z * z
        for tau, following in zip(levels[:-1], levels[1:]):
            s, removed = score(y, tau), tau * tau - following * following
            log_weights += removed * 0.5 * beta * (beta - 1) * s * s
            y += removed * beta * s + numpy.sqrt(removed) * rng.standard_normal(count)
            w = normalised(log_weights)
            if 1 / (w * w).sum() < 0.5 * count:
                places = (rng.random() + numpy.arange(count)) / count
                drawn = numpy.searchsorted(numpy.cumsum(w), places).clip(max=count - 1)
                y, log_weights = y[drawn], numpy.zeros(count)
        return [normalised(log_weights)[y > 0].sum()]

    return work


def systematic(inputs, settings):
    from particles import resampling

    weights = inputs["weights"]
    count = len(weights)
    resampling.systematic(weights, M=count)  # numba compiles it at the first call

    return lambda: [resampling.systematic(weights, M=count).sum() / count**2]


serve(
    {"annealing": annealing, "systematic-4096": systematic, "systematic-1m": systematic},
    versions=["numpy", "particles"],
)
