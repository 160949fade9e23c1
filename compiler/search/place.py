"""The folder of a search: the study, the report, and the recipes that no other beats."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from strop.compiler.recipes.recipe import Recipe
from strop.compiler.recipes.text import recipe_text
from strop.compiler.search.space import recipe_of
from strop.compiler.search.study import Tried
from strop.compiler.util.errors import UsageError
from strop.compiler.util.files.writing import require_folder, write_whole

MARK, STUDY, REPORT = "search.json", "study.db", "report.html"


@dataclass(frozen=True)
class Place:
    """A folder that belongs to a search; whatever else lies in it stays.

    Attributes:
        folder: as an absolute path.
    """

    folder: Path

    def prepare(self, study: str) -> None:
        """Make the folder, or take it up again.

        Raises:
            UsageError: it cannot be written, or holds something that is not a search's.
        """
        require_folder(self.folder, "--out")
        mark = self.folder / MARK
        if self.folder.is_dir() and any(self.folder.iterdir()) and not mark.is_file():
            raise UsageError(
                f"--out: {self.folder} holds files that are not a search's; name another folder"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(mark, json.dumps({"strop_search": 1, "study": study}) + "\n")

    @property
    def storage(self) -> str:
        """The address of the database, where none is named."""
        return f"sqlite:///{self.folder / STUDY}"

    def write(self, page: str, recipe: Recipe, tried: Sequence[Tried]) -> None:
        """Write the report and the recipe of each trial that no other beats; old ones go."""
        for old in self.folder.glob("best-*.toml"):
            old.unlink()
        for one in tried:
            if one.best:
                text = recipe_text(recipe_of(recipe, one.values))
                write_whole(self.folder / f"best-{one.number}.toml", text)
        write_whole(self.folder / REPORT, page)
