"""Files of spaCy become samples, and samples files of spaCy."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hmnet_pipe.manifests.errors import InputError
from hmnet_pipe.stages.prepare.readers import find_texts, read_samples

from ...spoilers import SPOILERS, huge


def test_without_spacy_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "spacy", None)
    (tmp_path / "train.spacy").write_bytes(b"")
    with pytest.raises(InputError, match=r"pip install 'hmnet-pipe\[spacy\]'"):
        read_samples(tmp_path, "ner")


# What lies behind the end of a compressed stream harms nobody.
SPOILT = [one for one in SPOILERS if one is not huge]


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
def test_a_file_that_is_none_of_spacy_is_one_sentence(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    spacy = pytest.importorskip("spacy")
    docs = pytest.importorskip("spacy.tokens")
    doc = docs.Doc(
        spacy.blank("xx").vocab, words=["Ada", "Lee", " ", "sat"], ents=["B-PER", "I-PER", "O", "O"]
    )
    path = tmp_path / "train.spacy"
    docs.DocBin(docs=[doc], store_user_data=True).to_disk(path)
    [sample], problems = read_samples(tmp_path, "ner")
    assert find_texts(tmp_path, "ner").format == "spacy"
    assert (sample.tokens, sample.tags, problems) == (["Ada", "Lee", "sat"], ["B-PER", "I-PER", "O"], [])
    spoil(path)
    with pytest.raises(InputError) as caught:
        read_samples(tmp_path, "ner")
    assert "\n" not in str(caught.value)
