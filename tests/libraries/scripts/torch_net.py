"""An estimator of the script that keeps a torch module of the script."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from torch import nn

from tests.libraries.case import Case, float32_flowers
from tests.libraries.scripts.every_way import check


class Net(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(4, width)
        self.last = nn.Linear(width, 3)

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(X).relu())


class TorchClassifier(ClassifierMixin, BaseEstimator):
    def __init__(self, width: int = 4, module: type[nn.Module] = Net) -> None:
        self.width = width
        self.module = module

    def fit(self, X: Any, y: Any) -> Self:
        torch.manual_seed(0)
        self.classes_ = np.unique(y)
        self.net_ = self.module(self.width)
        steps = torch.optim.SGD(self.net_.parameters(), lr=0.1)
        for _ in range(5):
            steps.zero_grad()
            loss = nn.functional.cross_entropy(
                self.net_(torch.tensor(X)), torch.tensor(y)
            )
            loss.backward()
            steps.step()
        return self

    def predict(self, X: Any) -> np.ndarray:
        with torch.no_grad():
            return self.classes_[self.net_(torch.tensor(X)).argmax(1).numpy()]


if __name__ == "__main__":
    check(
        Case(
            name="torch",
            estimator=TorchClassifier,
            space={"width": [2, 8], "module": [Net]},
            data=float32_flowers,
        )
    )
