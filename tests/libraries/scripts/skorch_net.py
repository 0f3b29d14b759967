"""A skorch net whose module is a class of the script."""

from __future__ import annotations

import torch
from skorch import NeuralNetClassifier
from torch import nn

from tests.libraries.case import Case, float32_flowers
from tests.libraries.scripts.every_way import check


class Net(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3))

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        return self.layers(X)


if __name__ == "__main__":
    check(
        Case(
            name="skorch",
            estimator=lambda: NeuralNetClassifier(
                Net,
                criterion=nn.CrossEntropyLoss,
                max_epochs=3,
                verbose=0,
                train_split=None,
            ),
            space={"module__width": [2, 8]},
            data=float32_flowers,
        )
    )
