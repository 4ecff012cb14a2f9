"""What the stages have in common that take seconds, so that they have no units: all of it is made anew."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...manifests.record import StageRecord
from ...manifests.run import RunFolder
from .settings import local_files
from .stage import Rerun, Stage, Verdict, changed_outputs, given_settings, problem_reasons
from .tools import Tools

__all__ = ["WholeStage"]


class WholeStage(Stage):
    """A stage that makes its table from other tables of the run, and beside it one of PROBLEMS.

    settings: its table of run.toml.
    """

    settings: Any

    optional = True

    @abstractmethod
    def tables(self) -> tuple[Path, ...]:
        """Return the tables of the run that it may read."""

    def given(self) -> dict[str, Any]:
        return given_settings(self.settings)

    def sources(self) -> Iterator[Path]:
        yield from local_files(self.settings).values()

    def failures(self) -> dict[str, int]:
        return problem_reasons(self.output_path("problems"))

    def missed(self) -> dict[str, int]:
        return {}

    def again(
        self, record: StageRecord, share: float, elsewhere: bool, scratch: RunFolder, tools: Tools
    ) -> Rerun:
        """Make all of it again."""
        for table in self.tables():
            if table.exists():
                (scratch.path / table.name).symlink_to(table.resolve())
        again: WholeStage = replace(self, run=scratch)  # type: ignore[type-var]
        counts = again.compute(again.causes(tools), tools)
        wrong = changed_outputs(record, again.outputs())
        verdict: Verdict = "different" if wrong else "equal"
        remarks = [f"{name} is not as recorded" for name in wrong]
        return Rerun(self.name, verdict, f"{counts.done} {counts.unit}", remarks=remarks)
