"""POT (ot.smooth, ot.emd) beside sparse-ot: the authors' own implementation of the paper is part of POT.

One thread: POT's smooth solvers are numpy loops; the few BLAS calls are limited by the environment below.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

from offprint_peer import serve


def smooth(solver, kind):
    def case(inputs, settings):
        import numpy
        import ot.smooth

        cost = numpy.ascontiguousarray(inputs["cost"])
        m, n = cost.shape
        a, b = numpy.full(m, 1 / m), numpy.full(n, 1 / n)
        more = {"max_nz": int(settings["k"])} if kind == "sparsity_constrained" else {}

        def work():
            solve = getattr(ot.smooth, solver)
            _, log = solve(
                a, b, cost, settings["gamma"], reg_type=kind, stopThr=1e-9, numItermax=500, log=True, **more
            )
            return [-log["res"].fun]

        return work

    return case


def emd(inputs, settings):
    import numpy
    import ot

    cost = numpy.ascontiguousarray(inputs["cost"])
    m, n = cost.shape
    a, b = numpy.full(m, 1 / m), numpy.full(n, 1 / n)
    return lambda: [ot.emd2(a, b, cost, numItermax=10_000_000)]


serve(
    {
        "dual-500": smooth("smooth_ot_dual", "sparsity_constrained"),
        "dual-1000": smooth("smooth_ot_dual", "sparsity_constrained"),
        "semi-dual-500": smooth("smooth_ot_semi_dual", "sparsity_constrained"),
        "quadratic-500": smooth("smooth_ot_dual", "l2"),
        "exact-1000": emd,
    },
    versions=["POT", "numpy", "scipy"],
)
