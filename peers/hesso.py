"""HESSO by its authors' optimiser, from `only_train_once`.

Version 3.0.1 finds groups through parts of `torch.onnx` that PyTorch has removed, asks for a GPU in one line, and expects
`torch.optim.optimizer.required`. The optimiser itself runs: it is loaded without the search, the groups of a perceptron
are written down by hand, and the three missing pieces are stood in for. What it computes is untouched.
"""

import functools
import importlib
import importlib.util
import sys
import types

import torch
from offprint_peer import serve


@functools.cache
def authors_optimiser():
    optimiser = importlib.import_module("torch.optim.optimizer")
    if not hasattr(optimiser, "required"):
        optimiser.required = object()
    if not torch.cuda.is_available():
        torch.Tensor.cuda = lambda self, *_, **__: self
    # The package's own start-up imports the search.
    package = types.ModuleType("only_train_once")
    package.__path__ = list(importlib.util.find_spec("only_train_once").submodule_search_locations)
    sys.modules["only_train_once"] = package
    return (
        importlib.import_module("only_train_once.optimizer.hesso").HESSO,
        importlib.import_module("only_train_once.transform").TensorTransform,
    )


def perceptron(inputs):
    layers = []
    for i in range(3):
        weight, bias = (torch.from_numpy(inputs[f"{name}{i}"].copy()) for name in "wb")
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0])
        layer.load_state_dict({"weight": weight, "bias": bias})
        layers += [layer, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def groups(model, transform):
    """One group of parameters a layer; the last layer's rows are the outputs and stay."""
    linear = [layer for layer in model if isinstance(layer, torch.nn.Linear)]
    for i, layer in enumerate(linear):
        yield {
            "id": f"layer{i}",
            "params": [layer.weight, layer.bias],
            "p_names": [f"{i}.weight", f"{i}.bias"],
            "p_transform": [transform.BASIC, transform.BASIC],
            "num_groups": layer.weight.shape[0],
            "is_prunable": i + 1 < len(linear),
            "is_auxiliary": False,
            "auxiliary_ngs": [],
        }


def zero_groups(model):
    linear = [layer for layer in model if isinstance(layer, torch.nn.Linear)]
    return sum(int(((layer.weight == 0).all(dim=1) & (layer.bias == 0)).sum()) for layer in linear[:-1])


def training(inputs, settings):
    hesso, transform = authors_optimiser()
    x = torch.from_numpy(inputs["x"].copy())
    classes = torch.from_numpy(inputs["classes"].copy())
    order = torch.from_numpy(inputs["batches"].copy())
    # An epoch's last batch is shorter.
    epochs = order.reshape(settings["epochs"], len(x))

    def work():
        model = perceptron(inputs)
        if settings["prune"]:
            optimiser = hesso(
                list(groups(model, transform)),
                variant="sgd",
                lr=settings["rate"],
                first_momentum=settings["momentum"],
                target_group_sparsity=settings["sparsity"],
                start_pruning_step=settings["start"],
                pruning_steps=settings["window"],
                pruning_periods=settings["periods"],
            )
        else:
            optimiser = torch.optim.SGD(model.parameters(), lr=settings["rate"], momentum=settings["momentum"])
        for epoch in epochs:
            for batch in epoch.split(settings["batch"]):
                optimiser.zero_grad()
                torch.nn.functional.cross_entropy(model(x[batch]), classes[batch]).backward()
                optimiser.step()
        with torch.no_grad():
            right = (model(x).argmax(1) == classes).float().mean()
        return [zero_groups(model), float(right)]

    return work


serve({"training": training, "training-and-pruning": training}, versions=["torch", "only_train_once"])
