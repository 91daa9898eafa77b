"""numpy's vectorised butterfly and the package sparse-transform beside SPRIGHT."""

import numpy as np
from offprint_peer import serve


def fwht(x):
    """The transform in place, one vectorised level after the other."""
    h = 1
    while h < len(x):
        pairs = x.reshape(-1, 2, h)
        low = pairs[:, 0].copy()
        pairs[:, 0] += pairs[:, 1]
        np.subtract(low, pairs[:, 1], out=pairs[:, 1])
        h *= 2
    return x


def full_transform(inputs, settings):
    table, indices = inputs["table"], inputs["indices"].astype(int)

    def work():
        return fwht(table.copy())[indices] / len(table)

    return work


def sparse_transform(inputs, settings):
    from sparse_transform.qsft.qsft import transform
    from sparse_transform.qsft.signals.input_signal_subsampled import SubsampledSignal

    table, bits = inputs["table"], settings["bits"]
    keys = [tuple(int(k) >> i & 1 for i in range(bits)) for k in inputs["indices"]]
    weights = 1 << np.arange(bits)

    def values(queries):
        return table[np.asarray(queries) @ weights]

    def work():
        signal = SubsampledSignal(
            func=values,
            n=bits,
            q=2,
            noise_sd=settings["sigma"],
            query_args={
                "b": settings["bin_bits"],
                "num_subsample": settings["groups"],
                "num_repeat": settings["delays"],
                "subsampling_method": "qsft",
                "query_method": "complex",
                "delays_method_source": "identity",
                "delays_method_channel": "nso",
            },
        )
        found = transform(
            signal,
            reconstruct_method_source="identity",
            reconstruct_method_channel="nso-hard",
            b=settings["bin_bits"],
            num_subsample=settings["groups"],
            num_repeat=settings["delays"],
            noise_sd=settings["sigma"],
            peeling_method="single-detect",
        )
        return [float(np.real(found.get(key, 0.0))) for key in keys]

    return work


if __name__ == "__main__":
    serve(
        {
            "full-transform": full_transform,
            "sparse-transform": sparse_transform,
            "sparse-beside-full": full_transform,
        },
        versions=["numpy", "sparse-transform"],
    )
