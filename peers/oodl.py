"""scikit-learn beside online orthogonal dictionary learning."""

import warnings

import numpy as np
from offprint_peer import serve
from scipy.optimize import linear_sum_assignment
from sklearn.decomposition import FastICA, MiniBatchDictionaryLearning


def recovery_error(learned, truth):
    """1 − ‖DᵀD*‖₄⁴ / N of the orthogonal matrix nearest to `learned` (columns atoms)."""
    u, _, vt = np.linalg.svd(learned)
    return 1.0 - np.sum((vt.T @ u.T @ truth) ** 4) / len(truth)


def online(inputs, settings):
    samples, truth, start = inputs["samples"][: settings["count"]], inputs["truth"], inputs["start"]
    batch = settings["batch"]

    def work():
        learner = MiniBatchDictionaryLearning(
            n_components=len(truth),
            alpha=settings["alpha"],
            batch_size=batch,
            dict_init=start.T.copy(),
            random_state=0,
        )
        for begin in range(0, len(samples), batch):
            learner.partial_fit(samples[begin : begin + batch])
        return [recovery_error(learner.components_.T, truth)]

    return work


def fast_ica(inputs, settings):
    samples, mixing = inputs["samples"], inputs["mixing"]

    def work():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ica = FastICA(whiten="unit-variance", fun="cube", random_state=0).fit(samples)
        learned = ica.mixing_ / np.linalg.norm(ica.mixing_, axis=0)
        truth = mixing / np.linalg.norm(mixing, axis=0)
        overlap = np.abs(truth.T @ learned)
        return [1.0 - overlap[linear_sum_assignment(-overlap)].min()]

    return work


serve(
    {"online-20": online, "online-64-batch-64": online, "fast-ica-20": fast_ica},
    versions=["scikit-learn", "numpy"],
)
