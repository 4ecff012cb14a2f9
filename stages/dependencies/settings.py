"""The settings of the dependencies stage."""

from dataclasses import dataclass

from ...manifests.errors import InputError
from ...manifests.schemas import CHAIN
from ..base.settings import check_settings, setting

__all__ = ["CONLLU", "PARSERS", "SPACY", "STANZA", "DependencySettings"]

CONLLU, SPACY, STANZA = "conllu", "spacy", "stanza"
PARSERS = (CHAIN, CONLLU, SPACY, STANZA)

_MODELS = {
    CONLLU: "a file in CoNLL-U",
    SPACY: "a pipeline of spaCy, a folder or an installed package such as en_core_web_sm",
    STANZA: "a language's folder of stanza's models, such as stanza_resources/en",
}


@dataclass(frozen=True)
class DependencySettings:
    """The table [dependencies] of run.toml."""

    parser: str = setting(
        CHAIN, f"one of {', '.join(PARSERS)}; chain links each word to the next", one_of=PARSERS
    )
    model: str = setting("", "the parser's model, or the file of conllu", words=("",))

    def __post_init__(self) -> None:
        check_settings("dependencies", self)
        if self.parser != CHAIN and not self.model:
            raise InputError(
                f"[dependencies] parser = {self.parser} needs a model, {_MODELS[self.parser]}: name it with "
                "--model"
            )
        if self.parser == CHAIN and self.model:
            raise InputError(
                f"[dependencies] model = {self.model} is of no use to parser = chain; give --parser, one of "
                f"{', '.join(_MODELS)}"
            )
