"""The scores of kronfluence: factors fitted with true targets and all pairs of queries and training rows."""

import shutil
import tempfile

import torch
from kronfluence.analyzer import Analyzer, prepare_model
from kronfluence.arguments import FactorArguments, ScoreArguments
from kronfluence.task import Task
from kronfluence.utils.dataset import DataLoaderKwargs
from offprint_peer import serve
from torch import nn
from torch.utils.data import TensorDataset


class Perceptron(nn.Module):
    def __init__(self, inputs, activation):
        super().__init__()
        weights = [torch.from_numpy(inputs[f"w{i}"].copy()) for i in range(3)]
        self.layers = nn.ModuleList(nn.Linear(w.shape[1], w.shape[0]) for w in weights)
        self.activation = activation
        for i, layer in enumerate(self.layers):
            layer.weight.data = weights[i]
            layer.bias.data = torch.from_numpy(inputs[f"b{i}"].copy())

    def forward(self, x):
        x = self.activation(self.layers[0](x))
        return self.layers[2](self.activation(self.layers[1](x)))


class Losses(Task):
    def __init__(self, loss):
        super().__init__()
        self.loss = loss

    def compute_train_loss(self, batch, model, sample=False):
        inputs, targets = batch
        outputs = model(inputs)
        if self.loss == "squared-error":
            return 0.5 * (outputs - targets).square().sum()
        return nn.functional.cross_entropy(outputs, targets, reduction="sum")

    def compute_measurement(self, batch, model):
        return self.compute_train_loss(batch, model)


def scores(inputs, settings):
    loss = settings["loss"]

    def rows(x, y):
        targets = torch.from_numpy(inputs[y].copy())
        if loss == "cross-entropy":
            targets = targets.long()
        return TensorDataset(torch.from_numpy(inputs[x].copy()), targets)

    train, queries = rows("x", "y"), rows("queries", "query_targets")
    activation = torch.tanh if settings["activation"] == "tanh" else torch.relu
    task = Losses(loss)
    model = prepare_model(Perceptron(inputs, activation), task)
    factors = FactorArguments(strategy="ekfac", use_empirical_fisher=True)
    arguments = ScoreArguments(damping_factor=None, query_gradient_low_rank=settings["rank"])
    loader = DataLoaderKwargs(num_workers=0)

    def work():
        directory = tempfile.mkdtemp()
        try:
            analyzer = Analyzer("bench", model, task, cpu=True, output_dir=directory, disable_tqdm=True)
            analyzer.set_dataloader_kwargs(loader)
            analyzer.fit_all_factors("f", dataset=train, factor_args=factors, per_device_batch_size=128)
            analyzer.compute_pairwise_scores(
                "s",
                "f",
                query_dataset=queries,
                train_dataset=train,
                per_device_query_batch_size=len(queries),
                per_device_train_batch_size=128,
                score_args=arguments,
            )
            s = analyzer.load_pairwise_scores("s")["all_modules"].double()
        finally:
            shutil.rmtree(directory)
        size = s.abs().mean()
        return [1e3 * size, s.mean() / size, s[0, 0] / size, s[-1, -1] / size]

    return work


serve({"regression": scores, "digits": scores}, versions=["kronfluence", "torch"])
