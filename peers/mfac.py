"""M-FAC as its authors' code goes about it, restated in PyTorch: single precision, one gradient after the other."""

import torch
from offprint_peer import serve


def fingerprint(y):
    y, root = y.double(), y.numel() ** 0.5
    size = y.norm() / root
    return [y[0] / size, y[-1] / size, y.sum() / (root * size), 1e3 * size]


class Static:
    """Rank-one terms in order: each direction needs the products with all before it."""

    def __init__(self, grads, damp):
        self.damp, self.v = damp, grads
        m = grads.shape[0]
        self.delta = torch.zeros(m)
        for i in range(m):
            g = self.v[i].clone()
            v = g / damp
            if i > 0:
                along = self.v[:i].matmul(g) / self.delta[:i]
                v -= along.matmul(self.v[:i])
            self.delta[i] = m + g.dot(v)
            self.v[i] = v

    def multiply(self, x):
        along = self.v.matmul(x) / self.delta
        return x / self.damp - along.matmul(self.v)


class Dynamic:
    """A ring of gradients, the upper factor of an LU without pivots for D, and a loop over rows for B."""

    def __init__(self, grads, damp):
        self.damp, self.g, self.last = damp, grads, 0
        self.m = grads.shape[0]
        self.inner = grads.matmul(grads.T)
        self.refactor()

    def refactor(self):
        m = self.m
        shifted = self.inner / self.damp + m * torch.eye(m)
        self.d = torch.triu(self.upper(shifted) - m * torch.eye(m))
        self.delta = m + self.d.diagonal()
        b = torch.diag(torch.full((m,), 1 / self.damp))
        scaled = self.d / self.delta[:, None]
        for i in range(1, m):
            b[i, :i] = -scaled[:i, i].matmul(b[:i, :i])
        self.b = b

    @staticmethod
    def upper(a):
        # The published code uses an LU without pivots, which PyTorch has on a GPU only. For a symmetric matrix the
        # Cholesky factor gives the same U = diag(L) Lᵀ.
        lower = torch.linalg.cholesky(a)
        return lower.diagonal()[:, None] * lower.T

    def step(self, g):
        self.g[self.last] = g
        along = self.g.matmul(g)
        self.inner[self.last, :] = along
        self.inner[:, self.last] = along
        self.refactor()
        self.last = (self.last + 1) % self.m
        y = along / self.damp
        for i in range(1, self.m):
            y[i:] -= y[i - 1] / self.delta[i - 1] * self.d[i - 1, i:]
        c = (y / self.delta).matmul(self.b)
        return g / self.damp - c.matmul(self.g)


def tensors(inputs):
    return {name: torch.from_numpy(array.copy()) for name, array in inputs.items()}


def static_setup(inputs, settings):
    t = tensors(inputs)
    return lambda: fingerprint(Static(t["grads"].clone(), settings["damp"]).multiply(t["x"]))


def static_product(inputs, settings):
    t = tensors(inputs)
    static = Static(t["grads"], settings["damp"])
    return lambda: fingerprint(static.multiply(t["x"]))


def dynamic_update(inputs, settings):
    t = tensors(inputs)
    dynamic = Dynamic(t["start"], settings["damp"])

    def work():
        for gradient in t["next"]:
            direction = dynamic.step(gradient)
        return fingerprint(direction)

    return work


serve(
    {
        "static-setup": static_setup,
        "static-product": static_product,
        "dynamic-update": dynamic_update,
        "dynamic-update-1024": dynamic_update,
    },
    versions=["torch"],
)
