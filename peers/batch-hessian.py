"""Hessian spectra with PyHessian, and both ends of an explicit matrix with SciPy's ARPACK."""

import torch
from offprint_peer import serve
from pyhessian import hessian
from scipy.sparse.linalg import LinearOperator, eigsh


def eig(matrix, eigenvectors):
    # PyHessian's density calls torch.eig, which PyTorch no longer has; its matrix is symmetric.
    values, vectors = torch.linalg.eigh(matrix)
    return torch.stack([values, torch.zeros_like(values)], 1), vectors


torch.eig = eig


def problem(inputs):
    model = torch.nn.Sequential(
        torch.nn.Linear(64, 64),
        torch.nn.Tanh(),
        torch.nn.Linear(64, 32),
        torch.nn.Tanh(),
        torch.nn.Linear(32, 10),
    )
    weights = torch.from_numpy(inputs["weights"].copy())
    torch.nn.utils.vector_to_parameters(weights, model.parameters())
    x, y = torch.from_numpy(inputs["x"].copy()), torch.from_numpy(inputs["y"].copy())

    def fresh():
        # What the constructor does (a pass with its gradient on the graph) is part of the work, on both sides.
        model.zero_grad(set_to_none=True)
        return hessian(model, torch.nn.CrossEntropyLoss(), data=(x, y), cuda=False)

    return fresh


def top_eigenvalue(inputs, settings):
    fresh = problem(inputs)
    return lambda: fresh().eigenvalues(maxIter=200, tol=settings["tolerance"], top_n=1)[0]


def density(inputs, settings):
    fresh = problem(inputs)

    def work():
        nodes, _ = fresh().density(iter=settings["steps"], n_v=1)
        return [max(nodes[0])]

    return work


def trace(inputs, settings):
    fresh = problem(inputs)

    def work():
        values = fresh().trace(maxIter=settings["probes"], tol=0)
        return [sum(values) / len(values)]

    return work


def explicit(inputs, settings):
    matrix, start = inputs["matrix"], inputs["start"]
    operator = LinearOperator(matrix.shape, matvec=lambda x: matrix @ x, dtype=matrix.dtype)
    return lambda: sorted(eigsh(operator, k=2, which="BE", v0=start, tol=1e-5, return_eigenvectors=False))


serve(
    {"top-eigenvalue": top_eigenvalue, "density": density, "trace": trace, "explicit": explicit},
    versions=["PyHessian", "torch", "scipy"],
)
