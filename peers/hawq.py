"""Top eigenvalues and traces of the Hessian of each block of a small convolutional network, with PyHessian."""

import torch
from offprint_peer import serve
from pyhessian import hessian
from torch import nn


class DigitsCnn(nn.Module):
    """Four convolutions with batch norm, the third beside a skip connection, and a classifier of the mean over places."""

    def __init__(self):
        super().__init__()
        for i, (inputs, outputs, stride) in enumerate([(1, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2)], 1):
            setattr(self, f"conv{i}", nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False))
            setattr(self, f"bn{i}", nn.BatchNorm2d(outputs))
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        for i in range(1, 5):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x))
            x = torch.relu(y + x if i == 3 else y)
        return self.fc(x.mean((2, 3)))


def model_of(flat):
    # Parameters in the order in which they are made, then running means and variances.
    model, at = DigitsCnn().eval(), 0
    norms = [getattr(model, f"bn{i}") for i in range(1, 5)]
    running = [tensor for norm in norms for tensor in (norm.running_mean, norm.running_var)]
    for tensor in [*model.parameters(), *running]:
        tensor.data.copy_(flat[at : at + tensor.numel()].view_as(tensor))
        at += tensor.numel()
    return model


def of_blocks(inputs, measure):
    model = model_of(torch.from_numpy(inputs["weights"].copy()))
    x, y = torch.from_numpy(inputs["x"].copy()), torch.from_numpy(inputs["y"].copy())
    blocks = [model.conv1, model.conv2, model.conv3, model.conv4, model.fc]

    def work():
        found = []
        for block in blocks:
            model.zero_grad(set_to_none=True)
            for parameter in model.parameters():
                parameter.requires_grad_(parameter is block.weight)
            # The constructor's pass with its gradient on the graph is part of the work, as it is on our side.
            found.append(measure(hessian(model, nn.CrossEntropyLoss(), data=(x, y), cuda=False)))
        return found

    return work


def eigenvalues(inputs, settings):
    return of_blocks(
        inputs, lambda h: h.eigenvalues(maxIter=settings["products"], tol=settings["tolerance"], top_n=1)[0][0]
    )


def traces(inputs, settings):
    def mean(h):
        values = h.trace(maxIter=settings["probes"], tol=0)
        return sum(values) / len(values)

    return of_blocks(inputs, mean)


serve({"eigenvalues": eigenvalues, "traces": traces}, versions=["PyHessian", "torch"])
