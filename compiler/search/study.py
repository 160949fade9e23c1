"""The study of a search in a database: what was tried, what came of it, and what to try next."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from strop.compiler.recipes.recipe import Recipe
from strop.compiler.search.space import Dimension, Space, as_text
from strop.compiler.util.errors import UsageError

if TYPE_CHECKING:
    import optuna

# How often a database is opened in which another worker makes the tables, and seconds between.
_TRIES, _PAUSE = 4, 0.5
_OF, _REASON, _MEASURED = "strop search of", "reason", "measured"


@dataclass(frozen=True)
class Tried:
    """One trial that has ended.

    Attributes:
        number: of the trial in its study.
        values: of the parameters, by name.
        measured: what it was measured by, by name; empty where it failed.
        reason: why it failed; "" where it did not.
        best: no other trial is as good in everything, and better in something.
    """

    number: int
    values: Mapping[str, Any]
    measured: Mapping[str, float]
    reason: str
    best: bool


class Study:
    """A study of Optuna's, for one recipe and one space."""

    def __init__(self, storage: str, name: str, recipe: Recipe, space: Space, seed: int) -> None:
        """Open a study, or begin it.

        Args:
            storage: the address of a database that SQLAlchemy knows.
            name: of the study there.
            recipe: whose options are searched.
            space: what they may be.
            seed: of what is drawn.

        Raises:
            UsageError: Optuna is missing, the database cannot be opened, or the study there is of
                another recipe or space.
        """
        self._optuna = _optuna()
        self._space, self._names = space, list(space.directions)
        self._study = self._opened(storage, name, seed)
        self._require_own(name, _identity(recipe, space))

    def _opened(self, storage: str, name: str, seed: int) -> optuna.Study:
        with _answering("cannot be opened"):
            study: optuna.Study = self._optuna.create_study(
                study_name=name,
                storage=self._database(storage),
                directions=list(self._space.directions.values()),
                load_if_exists=True,
            )
        # What is drawn depends on how much was tried: a worker that goes on draws anew.
        drawn = len(study.get_trials(deepcopy=False))
        study.sampler = self._optuna.samplers.TPESampler(seed=seed + drawn)
        return study

    def _database(self, address: str, tries: int = _TRIES) -> optuna.storages.RDBStorage:
        """The database, with its tables; several workers may make them at the same time."""
        import sqlalchemy

        try:
            opened: optuna.storages.RDBStorage = self._optuna.storages.RDBStorage(address)
        except (sqlalchemy.exc.IntegrityError, sqlalchemy.exc.OperationalError):
            if tries == 1:
                raise
            time.sleep(_PAUSE)
            return self._database(address, tries - 1)
        return opened

    def _require_own(self, name: str, identity: str) -> None:
        known = self._study.user_attrs.get(_OF)
        if known is None:
            with _answering("cannot be written"):
                self._study.set_user_attr(_OF, identity)
        elif known != identity:
            raise UsageError(
                f"the study '{name}' is of another recipe or another space; name another one with "
                "--study, or another folder"
            )

    def ask(self) -> tuple[optuna.Trial, dict[str, Any]]:
        """A new trial, and the values that it is to try."""
        with _answering("does not answer"):
            trial = self._study.ask()
            return trial, {n: _drawn(trial, n, one) for n, one in self._space.dimensions()}

    def succeeded(self, trial: optuna.Trial, measured: Mapping[str, float]) -> None:
        """Record what came of a trial."""
        with _answering("cannot be written"):
            trial.set_user_attr(_MEASURED, dict(measured))
            self._study.tell(trial, [measured[name] for name in self._names])

    def failed(self, trial: optuna.Trial, reason: str) -> None:
        """Record why a trial failed."""
        with _answering("cannot be written"):
            trial.set_user_attr(_REASON, reason)
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)

    def tried(self) -> list[Tried]:
        """All trials that have ended, of all workers, in order."""
        best = {trial.number for trial in self._study.best_trials}
        return [
            Tried(
                trial.number,
                {name: _value(value) for name, value in trial.params.items()},
                trial.user_attrs.get(_MEASURED, {}),
                trial.user_attrs.get(_REASON, ""),
                trial.number in best,
            )
            for trial in self._study.get_trials(deepcopy=False)
            if trial.state.is_finished()
        ]


def _optuna() -> Any:
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise UsageError(
            f"strop search needs the package {error.name}: pip install 'strop[search]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


@contextmanager
def _answering(what: str) -> Iterator[None]:
    """A block that uses the database.

    Raises:
        UsageError: it does not do what it should.
    """
    import optuna
    import sqlalchemy

    known = (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.OptunaError)
    try:
        yield
    except (*known, ImportError, RuntimeError, ValueError) as error:
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"--storage: the study {what}: {line}") from error


def _identity(recipe: Recipe, space: Space) -> str:
    """Equal on all machines that search the same."""
    values = {"recipe": recipe.without_folders().values(), "space": space.model_dump()}
    return json.dumps(values, sort_keys=True)


def _drawn(trial: optuna.Trial, name: str, dimension: Dimension) -> Any:
    if dimension.choices is not None:
        return _value(trial.suggest_categorical(name, list(map(as_text, dimension.choices))))
    assert dimension.low is not None and dimension.high is not None
    low, high, step = dimension.low, dimension.high, dimension.step
    if dimension.whole:
        return trial.suggest_int(name, int(low), int(high), step=int(step or 1), log=dimension.log)
    return trial.suggest_float(name, low, high, step=step, log=dimension.log)


def _value(stored: Any) -> Any:
    """A value as an option takes it: choices are stored as JSON."""
    return json.loads(stored) if isinstance(stored, str) else stored
