"""A keras model that a function of the script builds."""

from __future__ import annotations

from typing import Any

import keras
from keras.wrappers import SKLearnClassifier

from tests.libraries.case import Case, float32_flowers
from tests.libraries.scripts.every_way import check


def build(X: Any, y: Any, width: int = 4) -> keras.Model:
    """Build and compile a small network."""
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Input(X.shape[1:]),
        keras.layers.Dense(width, activation="relu"),
        keras.layers.Dense(y.shape[1], activation="softmax"),
    ]
    model = keras.Sequential(layers)
    model.compile(loss="categorical_crossentropy", optimizer="adam")
    return model


if __name__ == "__main__":
    check(
        Case(
            name="keras",
            estimator=lambda: SKLearnClassifier(
                build, fit_kwargs={"epochs": 2, "verbose": 0}
            ),
            space={"model_kwargs": [{"width": 2}, {"width": 8}]},
            data=float32_flowers,
        )
    )
