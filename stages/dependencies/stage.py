"""The dependencies stage: a tree of every text over its own words, as rows of a table.

Its parser is the user's, or its trees are; `chain` needs neither and says nothing of the sentence, which the
name of every model that reads it says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...manifests.errors import InputError
from ...manifests.files import reason_of, remove_temporaries
from ...manifests.fingerprint import digest_file
from ...manifests.record import StageRecord
from ...manifests.run import RunFolder
from ...manifests.schemas import CHAIN, DEPENDENCIES, PROBLEMS, SAMPLES
from ...manifests.tables import read_table, sound_digests, table_digest, table_of, write_table
from ..base.tools import SILENT, Counts, Tools
from ..base.whole import WholeStage
from .conllu import read_conllu
from .parsers import model_digest, open_parser
from .settings import CONLLU, SPACY, STANZA, DependencySettings
from .trees import Tree, chain, fault_of

__all__ = ["Dependencies", "parser_digest", "trees_digest"]

Texts = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Dependencies(WholeStage):
    """From samples.parquet to dependencies.parquet. See Stage for the contract."""

    run: RunFolder
    settings: DependencySettings

    kind = "dependencies"
    files = ("dependencies", "problems")
    schema_version = 1

    def parameters(self) -> dict[str, Any]:
        return {"parser": self.settings.parser}

    def inputs(self, tools: Tools = SILENT) -> dict[str, str]:
        trees = {"trees": trees_digest(self.settings)} if self.settings.parser == CONLLU else {}
        return {"samples": table_digest(self.run.samples, SAMPLES, "prepare"), **trees}

    def weights(self) -> dict[str, str]:
        return {"parser": parser_digest(self.settings)} if self.settings.parser in (SPACY, STANZA) else {}

    def outputs(self) -> dict[str, str]:
        return sound_digests(
            {
                "dependencies": (self.run.dependencies, DEPENDENCIES),
                "problems": (self.output_path("problems"), PROBLEMS),
            }
        )

    def output_path(self, output: str) -> Path:
        return self.run.dependencies if output == "dependencies" else self.run.outcomes(self.name)

    @property
    def place(self) -> Path:
        return self.run.dependencies

    def before(self) -> tuple[str, ...]:
        return ("prepare",)

    def tables(self) -> tuple[Path, ...]:
        return (self.run.samples,)

    def compute(self, causes: StageRecord, tools: Tools) -> Counts:
        remove_temporaries(self.run.path, self.run.dependencies.name)
        rows = read_table(self.run.samples, SAMPLES, columns=["id", "tokens"]).to_pylist()
        texts = {row["id"]: row["tokens"] for row in rows}
        trees, made_by = self._trees(texts, tools)
        problems = [
            {"kind": "tree", "sample": sample, "where": self.settings.model, "reason": reason}
            for sample in texts
            if (reason := _wrong(trees.get(sample), texts[sample])) is not None
        ]
        refused = {row["sample"] for row in problems}
        found = [
            {
                "id": sample,
                "words": words,
                "head": trees[sample].heads,
                "deprel": trees[sample].relations,
                **made_by,
            }
            for sample, words in texts.items()
            if sample not in refused
        ]
        write_table(self.output_path("problems"), table_of(PROBLEMS, problems))
        write_table(self.run.dependencies, table_of(DEPENDENCIES, found))
        if problems:
            tools.say(
                f"note: {len(problems)} of {len(texts)} samples have no tree; their words are not linked"
            )
        return Counts(
            "samples",
            done=len(found),
            failed=len(problems),
            details={
                "parser": " ".join(filter(None, made_by.values())),
                "failures": str(self.output_path("problems")) if problems else None,
            },
        )

    def _trees(self, texts: Texts, tools: Tools) -> tuple[dict[str, Tree], dict[str, str]]:
        """Return the trees by sample, and the columns that say what made them."""
        parser = self.settings.parser
        if parser == CHAIN:
            return {sample: chain(len(words)) for sample, words in texts.items()}, _made_by(CHAIN)
        if parser == CONLLU:
            path = _file(self.settings)
            found = read_conllu(path, texts)
            if not found:
                raise InputError(
                    f"{path} has no tree of any of the {len(texts)} samples; `# sample_id = ID` above "
                    "a sentence says which it is of"
                )
            return found, _made_by(CONLLU, path.name)
        opened = open_parser(parser, self.settings.model)
        bar = tools.bar(len(texts), "parse", "sample")
        trees: dict[str, Tree] = {}
        for sample, tree in zip(texts, opened.parse(list(texts.values())), strict=True):
            trees[sample] = tree
            bar.update()
        bar.close()
        return trees, _made_by(opened.tool, opened.model, opened.version)


def trees_digest(settings: DependencySettings) -> str:
    """Return the digest of the user's file of trees. Raises InputError where it cannot be read."""
    path = _file(settings)
    try:
        return digest_file(path)
    except OSError as error:
        raise InputError(f"{path} (--model) cannot be read: {reason_of(error)}") from error


def parser_digest(settings: DependencySettings) -> str:
    """Return the digest of the parser's model. Raises WeightsError where there is none."""
    return model_digest(settings.parser, settings.model)


def _file(settings: DependencySettings) -> Path:
    return Path(settings.model).expanduser()


def _made_by(tool: str, model: str = "", version: str = "") -> dict[str, str]:
    return {"tool": tool, "model": model, "version": version}


def _wrong(tree: Tree | None, words: Sequence[str]) -> str | None:
    """Return why a text has no tree, or None."""
    if tree is None:
        return "no tree of it was given"
    if len(tree.heads) != len(words):
        return f"it has {len(words)} words, and its tree {len(tree.heads)}"
    return fault_of(tree.heads)
