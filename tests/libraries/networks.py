"""Cases of torch, skorch and keras."""

from __future__ import annotations

from typing import Any, Self

import keras
import numpy as np
import torch
from keras.wrappers import SKLearnClassifier, SKLearnRegressor
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import EarlyStopping, EpochScoring, LRScheduler
from torch import nn

from tests.libraries.case import EVERY_KIND, SOME_KINDS, Case, float32_flowers

SEED = 3


class Net(nn.Module):
    """Has one hidden layer, and weights that are always the same at first."""

    def __init__(self, width: int = 4, n_outputs: int = 3, n_inputs: int = 4) -> None:
        super().__init__()
        torch.manual_seed(SEED)
        self.layers = nn.Sequential(
            nn.Linear(n_inputs, width), nn.ReLU(), nn.Linear(width, n_outputs)
        )

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        return self.layers(X)


class TorchClassifier(ClassifierMixin, BaseEstimator):
    """Trains a network by hand, with dropout and batches from torch's generator."""

    def __init__(self, width: int = 4, random_state: int | None = SEED) -> None:
        self.width = width
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        if self.random_state is not None:
            torch.manual_seed(self.random_state)
        self.classes_ = np.unique(y)
        self.net_ = nn.Sequential(
            nn.Linear(X.shape[1], self.width),
            nn.Dropout(0.2),
            nn.ReLU(),
            nn.Linear(self.width, len(self.classes_)),
        )
        data = torch.utils.data.TensorDataset(_tensor(X), _tensor(y))
        batches = torch.utils.data.DataLoader(data, batch_size=16, shuffle=True)
        steps = torch.optim.Adam(self.net_.parameters(), lr=0.05)
        for _ in range(3):
            for inputs, targets in batches:
                steps.zero_grad()
                nn.functional.cross_entropy(self.net_(inputs), targets).backward()
                steps.step()
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        self.net_.eval()
        with torch.no_grad():
            return self.net_(_tensor(X)).softmax(1).numpy()

    def predict(self, X: Any) -> np.ndarray:
        return self.classes_[self.predict_proba(X).argmax(1)]


def _tensor(values: Any) -> torch.Tensor:
    return values if isinstance(values, torch.Tensor) else torch.tensor(values)


def _tensors() -> tuple[torch.Tensor, np.ndarray]:
    X, y = float32_flowers()
    return torch.tensor(X), y


def _lengths() -> tuple[np.ndarray, np.ndarray]:
    X, _ = float32_flowers()
    return X[:, :3], X[:, 3:]


def _flat_lengths() -> tuple[np.ndarray, np.ndarray]:
    X, y = _lengths()
    return X, y.ravel()


def _skorch(**options: Any) -> NeuralNetClassifier:
    defaults: dict[str, Any] = {
        "criterion": nn.CrossEntropyLoss,
        "max_epochs": 3,
        "lr": 0.1,
        "verbose": 0,
        "train_split": None,
    }
    return NeuralNetClassifier(Net, **(defaults | options))


def classifier(X: Any, y: Any, width: int = 4) -> keras.Model:
    """Build and compile a network, always with the same weights at first."""
    keras.utils.set_random_seed(SEED)
    model = keras.Sequential(
        [
            keras.layers.Input(X.shape[1:]),
            keras.layers.Dense(width, activation="relu"),
            keras.layers.Dropout(0.2, seed=SEED),
            keras.layers.Dense(y.shape[1], activation="softmax"),
        ]
    )
    model.compile(loss="categorical_crossentropy", optimizer="adam")
    return model


def regressor(X: Any, y: Any, width: int = 4) -> keras.Model:
    """Build a network for one number."""
    del y
    keras.utils.set_random_seed(SEED)
    model = keras.Sequential(
        [
            keras.layers.Input(X.shape[1:]),
            keras.layers.Dense(width, activation="relu"),
            keras.layers.Dense(1),
        ]
    )
    model.compile(loss="mse", optimizer="adam")
    return model


def _keras() -> SKLearnClassifier:
    return SKLearnClassifier(
        classifier, model_kwargs={"width": 4}, fit_kwargs={"epochs": 2, "verbose": 0}
    )


WIDTHS = [2, 4, 8]
TORCH = (
    Case(
        name="torch",
        estimator=TorchClassifier,
        space={"width": WIDTHS},
        data=float32_flowers,
        kinds=EVERY_KIND,
    ),
    Case(
        name="torch-tensors",
        estimator=TorchClassifier,
        space={"width": WIDTHS},
        data=_tensors,
    ),
)
SKORCH = (
    Case(
        name="skorch",
        estimator=_skorch,
        space={"module__width": WIDTHS},
        data=float32_flowers,
        kinds=EVERY_KIND,
    ),
    Case(
        name="skorch-pipeline",
        estimator=lambda: make_pipeline(StandardScaler(), _skorch()),
        space={"neuralnetclassifier__lr": [0.01, 0.1, 0.5]},
        data=float32_flowers,
        kinds=("grid", "bayes"),
    ),
    Case(
        name="skorch-callbacks",
        estimator=lambda: NeuralNetRegressor(
            Net,
            module__n_outputs=1,
            module__n_inputs=3,
            max_epochs=4,
            verbose=0,
            train_split=None,
            callbacks=[
                EarlyStopping("train_loss", patience=1, threshold=0.1),
                LRScheduler("StepLR", step_size=1),
                EpochScoring("r2", on_train=True, name="r2"),
            ],
        ),
        space={"module__width": WIDTHS},
        data=_lengths,
    ),
)
KERAS = (
    Case(
        name="keras",
        estimator=_keras,
        # A parameter of dicts, which skopt's spaces cannot have.
        space={"model_kwargs": [{"width": width} for width in WIDTHS]},
        data=float32_flowers,
        kinds=tuple(kind for kind in SOME_KINDS if kind != "bayes"),
    ),
    Case(
        name="keras-regressor",
        estimator=lambda: make_pipeline(
            StandardScaler(),
            SKLearnRegressor(regressor, fit_kwargs={"epochs": 2, "verbose": 0}),
        ),
        space={"standardscaler__with_mean": [True, False]},
        data=_flat_lengths,
        kinds=("grid", "bayes"),
    ),
)
CASES = TORCH + SKORCH + KERAS
UNSEEDED = Case(
    name="torch-unseeded",
    estimator=lambda: TorchClassifier(random_state=None),
    space={"width": WIDTHS},
    data=float32_flowers,
)
