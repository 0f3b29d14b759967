"""The exports of a run: methods of `SearchRun`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, cast

from dask_hpsearch.exceptions import HPSearchError
from dask_hpsearch.journal.folder import SEARCH, RunFolder
from dask_hpsearch.runs import views

if TYPE_CHECKING:
    import os

    import optuna

    from dask_hpsearch.exports.candidate_result import CandidateResult
    from dask_hpsearch.journal.events import Event
    from dask_hpsearch.runs.run import SearchRun


class RunExports(ABC):
    """Writes the candidates of a run to where other tools read them.

    Parameters
    ----------
    folder : RunFolder
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    @property
    def run_id(self) -> str:
        """The run's name within its store."""
        return self._folder.run_id

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the table of `trials` to a CSV file, with states and times.

        Beside its columns it has ``state`` ("complete", "failed", "dropped" or
        "unfinished"), ``started`` and ``ended`` (UTC); ``params`` is a JSON text.

        Parameters
        ----------
        path : str or path-like
            A local path, or the URL of a file in a store, such as
            ``gs://bucket/folder/trials.csv``. It is written whole or not at all, in the
            place of an existing one.

        Raises
        ------
        MissingExtraError
            If pandas is not installed.
        StoreError
            If it cannot be written.
        """
        from dask_hpsearch.exports import tables

        events, candidates = self._candidates()
        tables.to_csv(views.trials(events), candidates, path)

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write the table of `trials` to a Parquet file; see `to_csv`.

        A parameter whose values have several types becomes a column of texts.
        """
        from dask_hpsearch.exports import tables

        events, candidates = self._candidates()
        tables.to_parquet(views.trials(events), candidates, path)

    def to_optuna(
        self,
        storage: Any = None,
        study_name: str | None = None,
        *,
        scoring: str | None = None,
    ) -> optuna.Study:
        """Return an Optuna study whose trials are the run's candidates.

        It works while the search runs too. Exported again into the same study of a
        storage, it adds the candidates that are new. What `optuna.visualization` and
        optuna-dashboard show of a study, they show of it.

        Parameters
        ----------
        storage : str or optuna.storages.BaseStorage, optional
            Where the study is kept; default: in memory.
        study_name : str, optional
            Default: the run's own name.
        scoring : str, optional
            Which of several scores is the value of a trial; default: the search's
            ``refit``.

        Returns
        -------
        optuna.Study
            Its direction is "maximize". Candidates that are dropped are pruned trials;
            those that have not ended are left out. Intermediate values are the scores of
            the splits.

        Raises
        ------
        MissingExtraError
            If Optuna is not installed.
        ValueError
            If the search has no such score, or the study has other parameters.
        """
        from dask_hpsearch.exports.optuna_study import to_study

        _, candidates = self._candidates()
        study: optuna.Study = to_study(
            candidates,
            self._search(),
            storage=storage,
            study_name=study_name or self.run_id,
            scoring=scoring,
            refit=self._folder.manifest.traits["refit"],
        )
        return study

    def to_mlflow(
        self,
        experiment: str | None = None,
        tracking_uri: str | None = None,
        *,
        run_name: str | None = None,
        log_model: bool = True,
        X: Any = None,
    ) -> str:
        """Write the run to MLflow: a run of its own, with a child run for each candidate.

        It works while the search runs too. Written again, or after ``tracker="mlflow"``,
        it adds what is new. Do not call it while a tracker writes the same run.

        Parameters
        ----------
        experiment, tracking_uri, run_name : str, optional
            As for `MlflowTracker`.
        log_model : bool
            Whether to log the refitted model, if the run has one.
        X : array-like, optional
            Some rows of the data, for the model's signature and input example; without
            them it has none.

        Returns
        -------
        str
            The id of the run at MLflow.

        Raises
        ------
        MissingExtraError
            If MLflow is not installed.
        TrackerError
            If MLflow cannot be reached, or refuses a request.
        """
        from dask_hpsearch.exports.mlflow_settings import MlflowTracker
        from dask_hpsearch.runs.mlflow_export import export_run

        tracker = MlflowTracker(
            experiment=experiment,
            tracking_uri=tracking_uri,
            run_name=run_name,
            log_model=log_model,
        )
        _, candidates = self._candidates()
        run = cast("SearchRun", self)
        return export_run(run, self._folder, candidates, tracker, X)

    def _candidates(self) -> tuple[list[Event], list[CandidateResult]]:
        """Return all events, and the candidates in them with states and times."""
        from dask_hpsearch.runs.candidates import candidates_of

        events, ended = self._events_so_far()
        refit = self._folder.manifest.traits["refit"]
        return events, candidates_of(events, self.run_id, refit=refit, ended=ended)

    def _search(self) -> Any:
        """Return the search as the user made it; None if it cannot be loaded here."""
        try:
            return self._folder.load_pickle(SEARCH)
        except (HPSearchError, AttributeError, ImportError):
            return None

    @abstractmethod
    def _events_so_far(self) -> tuple[list[Event], bool]:
        """Return all events, and whether the run has ended."""
