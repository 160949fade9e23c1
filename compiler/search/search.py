"""The search: trial after trial, each recorded with what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strop.compiler.recipes.recipe import Recipe
from strop.compiler.search.space import Space, recipe_of
from strop.compiler.search.study import Study
from strop.compiler.search.trial import require_measured, workshop
from strop.compiler.util.errors import StropError
from strop.compiler.util.interrupts import Interrupted
from strop.compiler.util.stages import Progress

if TYPE_CHECKING:
    import optuna

INTERRUPTED = "it was interrupted"


@dataclass(frozen=True)
class Search:
    """What is searched, and who is told of it.

    Attributes:
        source: the model.
        recipe: as it is; its values are replaced trial by trial.
        space: the values.
        progress: told what is being done.
        say: told of each trial, in a sentence.
    """

    source: str
    recipe: Recipe
    space: Space
    progress: Progress
    say: Callable[[str], None]

    def run(self, study: Study, trials: int) -> Mapping[str, float]:
        """Make so many trials; what the recipe as it is was measured by.

        A trial that fails is recorded with its reason, and the next one begins.

        Raises:
            StropError: the recipe as it is cannot be built, so that nothing can be compared.
            Interrupted: a signal; the trial under way is recorded as failed.
        """
        with workshop(self.source, self.recipe, self.progress) as shop:
            require_measured(self.space.directions, shop.measured)
            for _ in range(trials):
                self._try(study, shop.values)
            return shop.measured

    def _try(self, study: Study, values: Callable[[Recipe], dict[str, float]]) -> None:
        trial, drawn = study.ask()
        self.progress(f"trial {trial.number}")
        try:
            measured = values(recipe_of(self.recipe, drawn))
        except Interrupted:
            study.failed(trial, INTERRUPTED)
            raise
        except StropError as error:
            self._failed(study, trial, str(error))
        except Exception as error:  # a bug that some options bring out must not end the search
            self._failed(study, trial, f"a bug in strop: {type(error).__name__}: {error}")
        else:
            study.succeeded(trial, measured)
            told = ", ".join(f"{name} {measured[name]:.6g}" for name in self.space.directions)
            self.say(f"trial {trial.number}: {told}")

    def _failed(self, study: Study, trial: optuna.Trial, reason: str) -> None:
        study.failed(trial, reason)
        self.say(f"trial {trial.number} failed: {reason}")
