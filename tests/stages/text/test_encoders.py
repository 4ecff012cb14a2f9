"""Encoders' folders as they come: with code of their own, without a tokenizer, with tokens of a user's,
damaged, of a type that takes no prefix, or with a tokenizer in Python alone.
"""

import builtins
import io
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hmnet_pipe.manifests.errors import HmnetPipeError, WeightsError
from hmnet_pipe.manifests.schemas import SAMPLES
from hmnet_pipe.manifests.tables import table_of, write_table
from hmnet_pipe.manifests.trial import Trial
from hmnet_pipe.stages.base.tools import Tools
from hmnet_pipe.stages.learning.fit import read_data
from hmnet_pipe.stages.learning.opened import open_model
from hmnet_pipe.stages.learning.recipe import TrainingJob, TrainSettings
from hmnet_pipe.stages.systems.batch import ModelConfig
from hmnet_pipe.stages.systems.build import new_system
from hmnet_pipe.stages.systems.folder import load_system
from hmnet_pipe.stages.text.encoders.bert import (
    encode,
    load_encoder,
    load_tokenizer,
    save_tokenizer,
)
from hmnet_pipe.stages.text.encoders.files import encoder_digest
from hmnet_pipe.stages.text.limits import MARKERS, special_tokens, word_pieces
from hmnet_pipe.stages.text.subwords import Subwords
from tokenizers.processors import TemplateProcessing

from ...encoders import KINDS, save_encoder

NER = ModelConfig("bert-crf", "ner", ("O", "B-PER", "I-PER"), (), "markers", 32, {}, None)
RE = ModelConfig("mtb", "re", ("None", "/per/loc"), (), "markers", 32, {}, None)


@pytest.fixture
def encoder(tiny_encoder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_encoder, tmp_path / "encoder"))


@pytest.fixture
def model(encoder: Path, tmp_path: Path) -> Path:
    """The folder of a model that was saved and never trained."""
    new_system(encoder, NER).save_pretrained(tmp_path / "model", Subwords(load_tokenizer(encoder)))
    return tmp_path / "model"


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def one_sentence(error: BaseException) -> str:
    assert "\n" not in str(error)
    assert len(str(error)) < 600
    return str(error)


# Code of its own.

OWN = {
    "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel", "AutoTokenizer": ["own.T", None]}
}


def test_code_of_an_encoder_is_neither_run_nor_asked_about(
    encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def yes(question: str = "") -> str:
        asked.append(question)
        return "y"

    monkeypatch.setattr(builtins, "input", yes)
    ran = encoder / "ran"
    (encoder / "own.py").write_text(f"open({str(ran)!r}, 'w')\n")
    edit(encoder / "config.json", model_type="own", **OWN)
    edit(encoder / "tokenizer_config.json", tokenizer_class="OwnTokenizer", **OWN)
    for load in (load_encoder, load_tokenizer):
        with pytest.raises(WeightsError, match="needs code of its own, which is never run here") as refused:
            load(encoder)
        one_sentence(refused.value)
    assert asked == []
    assert not ran.exists()


def test_a_model_whose_configuration_names_code_is_built_by_the_code_that_is_here(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builtins, "input", lambda *_: pytest.fail("asked"))
    config = json.loads((model / "config.json").read_text())
    edit(model / "config.json", encoder={**config["encoder"], **OWN})
    assert type(load_system(model).encoder).__module__.startswith("transformers.")


# Tokenizers.


@pytest.mark.parametrize("kind", ["tiny_encoder", "tiny_roberta"])
def test_no_vocabulary_is_made_up(request: pytest.FixtureRequest, kind: str, tmp_path: Path) -> None:
    encoder = Path(shutil.copytree(request.getfixturevalue(kind), tmp_path / "bare"))
    (encoder / "tokenizer.json").unlink()
    with pytest.raises(WeightsError, match="tokenizer"):
        load_tokenizer(encoder)
    (encoder / "tokenizer_config.json").unlink()
    with pytest.raises(WeightsError, match=r"holds no tokenizer.*tokenizer\.json, or ") as refused:
        load_tokenizer(encoder)
    one_sentence(refused.value)


def test_a_tokenizer_of_sentencepiece_names_the_package_that_reads_it(
    encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DeBERTa v3 is published so. transformers asks for another package, which does not read it either."""
    monkeypatch.setattr("hmnet_pipe.stages.text.encoders.bert.find_spec", lambda name: None)
    (encoder / "tokenizer.json").unlink()
    (encoder / "spm.model").write_bytes(b"\n\x05")
    (encoder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "DebertaV2Tokenizer"}))
    with pytest.raises(
        WeightsError, match=r"spm\.model alone.*`pip install sentencepiece protobuf`"
    ) as refused:
        load_tokenizer(encoder)
    one_sentence(refused.value)


def test_a_vocabulary_in_text_is_the_encoders_own(encoder: Path) -> None:
    tokenizer = load_tokenizer(encoder)
    names = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    (encoder / "vocab.txt").write_text("\n".join(names) + "\n")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (encoder / name).unlink()
    texts = [["Ada", "lives", "in", "xyz"]]
    assert word_pieces(load_tokenizer(encoder), texts) == word_pieces(tokenizer, texts)


def said_of(encoder: Path, tokens: list[list[str]], folder: Path) -> list[str]:
    """What reading these training texts says."""
    rows = [
        {"id": str(i), "split": "train", "task": "ner", "tokens": words, "tags": ["O"] * len(words)}
        for i, words in enumerate(tokens)
    ]
    write_table(folder / "samples.parquet", table_of(SAMPLES, rows))
    recipe = TrainSettings(encoder=str(encoder))
    job = TrainingJob(
        name="train",
        title="train",
        command="",
        task="ner",
        trial=Trial("bert-crf"),
        recipe=recipe,
        rates=recipe.rates,
        encoder=encoder,
        samples=folder / "samples.parquet",
        config=folder / "run.toml",
        folder=folder / "model",
        checkpoints=folder / "checkpoints",
        logs=None,
    )
    said: list[str] = []
    read_data(job, None, Tools(say=said.append))
    return [line for line in said if "unknown" in line]


def test_texts_that_the_encoder_does_not_know_are_a_warning_with_their_share(
    tiny_encoder: Path, tmp_path: Path
) -> None:
    assert said_of(tiny_encoder, [["ada", "cat"]] * 20, tmp_path) == []
    (line,) = said_of(tiny_encoder, [["ada", "cat", "\u0436"]] * 2 + [["cat"] * 4], tmp_path)
    assert "20.0% of the sub-words are unknown" in line


def add_tokens(encoder: Path, *tokens: str) -> int:
    """Add a user's tokens to the tokenizer of an encoder; return how many embeddings the encoder has."""
    tokenizer = load_tokenizer(encoder)
    rows = len(tokenizer)
    tokenizer.add_tokens(list(tokens))
    tokenizer.save_pretrained(encoder)
    return rows


@pytest.mark.parametrize("config", [NER, RE])
def test_tokens_that_were_added_to_a_tokenizer_get_embeddings(
    encoder: Path, tmp_path: Path, config: ModelConfig
) -> None:
    rows = add_tokens(encoder, "\U0001f600", "httpurl")
    tokenizer = load_tokenizer(encoder)
    if config.task == "re":
        tokenizer.add_special_tokens({"additional_special_tokens": list(MARKERS)})
    torch.manual_seed(0)
    made = new_system(encoder, config, Subwords(tokenizer))
    here = made.encoder.get_input_embeddings().weight
    assert len(here) == len(tokenizer) == rows + 2 + (4 if config.task == "re" else 0)
    assert torch.equal(here[:rows], load_encoder(encoder).get_input_embeddings().weight)
    (pieces,) = word_pieces(tokenizer, [["ada", "httpurl", "\U0001f600"]])
    assert [pieces[1], pieces[2]] == [[rows + 1], [rows]]
    made.save_pretrained(tmp_path / "model", Subwords(tokenizer))
    open_model(tmp_path / "model", device="cpu", precision="fp32")  # with all that it needs
    loaded = load_system(tmp_path / "model")
    ids = torch.tensor([[rows, rows + 1]])
    assert torch.isfinite(encode(loaded.encoder, ids, torch.ones_like(ids), None)).all()


def test_a_tokenizer_of_another_encoder_is_refused_before_anything_is_computed(
    encoder: Path, tiny_roberta: Path, model: Path
) -> None:
    shutil.copy(tiny_roberta / "tokenizer.json", encoder)
    shutil.copy(tiny_roberta / "tokenizer.json", model / "tokenizer")
    with pytest.raises(WeightsError, match="it is another encoder's"):
        new_system(encoder, NER)
    with pytest.raises(WeightsError, match="not the tokenizer that it was trained with"):
        open_model(model, device="cpu")


@pytest.mark.parametrize("kind", KINDS)
def test_a_word_is_what_it_is_in_a_text(kind: str, tmp_path: Path) -> None:
    """Also where nothing but the text has the space before it, as with ModernBERT's tokenizer."""
    text = "ada lives in london near alan and ada"
    tokenizer = load_tokenizer(save_encoder(tmp_path / kind, kind, [text] * 20))
    inside = tokenizer(f"near {text}", add_special_tokens=False)["input_ids"]
    before = tokenizer("near", add_special_tokens=False)["input_ids"]
    (pieces,) = word_pieces(tokenizer, [text.split()])
    assert [piece for word in pieces for piece in word] == inside[len(before) :]
    assert pieces[0] == pieces[-1]
    tokenizer.add_tokens(["httpurl"])
    assert word_pieces(tokenizer, [["httpurl"]]) == [[[tokenizer.convert_tokens_to_ids("httpurl")]]]


# BERTweet's tokenizer, which exists in Python alone.

VOCABULARY = ["ada", "lo@@", "n", "sat"]
MERGES = ["a d", "ad a</w>", "l o", "s a", "sa t</w>"]


@pytest.fixture
def tweets(tiny_roberta: Path, tmp_path: Path) -> Path:
    """An encoder as BERTweet is published: words and merges with counts, no tokenizer.json."""
    folder = Path(shutil.copytree(tiny_roberta, tmp_path / "tweets"))
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertweetTokenizer"}))
    (folder / "vocab.txt").write_text("".join(f"{word} 9\n" for word in VOCABULARY))
    (folder / "bpe.codes").write_text("".join(f"{merge} 9\n" for merge in MERGES))
    return folder


def test_words_of_a_tokenizer_in_python_are_encoded_one_by_one(tweets: Path) -> None:
    tokenizer = load_tokenizer(tweets)
    assert not tokenizer.is_fast
    ada, lo, n, sat = (tokenizer.convert_tokens_to_ids(word) for word in VOCABULARY)
    unknown = tokenizer.unk_token_id
    pieces = word_pieces(tokenizer, [["sat", "lon", "\u00a0", "ada"], ["[E1]", "ada"]])
    assert pieces[0] == [[sat], [lo, n], [unknown], [ada]]
    assert pieces[1][1] == [ada]
    tokenizer.add_special_tokens({"additional_special_tokens": list(MARKERS)})
    assert not {*word_pieces(tokenizer, [["[E1]"]])[0][0]} & {*tokenizer.convert_tokens_to_ids(list(MARKERS))}
    assert tokenizer.convert_ids_to_tokens(list(special_tokens(tokenizer))) == ["<s>", "</s>"]


def test_a_tokenizer_in_python_is_kept_beside_its_model(tweets: Path, tmp_path: Path) -> None:
    """transformers alone would lose every merge."""
    tokenizer = load_tokenizer(tweets)
    tokenizer.add_special_tokens({"additional_special_tokens": list(MARKERS)})
    save_tokenizer(tokenizer, tmp_path / "kept")
    texts = [["sat", "lon", "ada", "adasat"]]
    kept = load_tokenizer(tmp_path / "kept")
    assert word_pieces(kept, texts) == word_pieces(tokenizer, texts)
    assert kept.convert_tokens_to_ids(list(MARKERS)) == tokenizer.convert_tokens_to_ids(list(MARKERS))
    before = encoder_digest(tweets)
    (tweets / "bpe.codes").write_text("a d 9\n")
    assert encoder_digest(tweets) != before


def test_a_tokenizer_that_frames_nothing_frames_by_the_tokens_that_it_names(tiny_encoder: Path) -> None:
    tokenizer = load_tokenizer(tiny_encoder)
    framed = special_tokens(tokenizer)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("$A")
    assert tokenizer("")["input_ids"] == []
    assert special_tokens(tokenizer) == framed
    tokenizer.cls_token = None
    with pytest.raises(WeightsError, match=r"names no token that opens a text \(cls_token, bos_token\)"):
        special_tokens(tokenizer)


# Types of encoders: those that take a prefix, and those of transformers that do not, are in test_families.


def test_an_encoder_of_another_type_is_refused_by_name(encoder: Path) -> None:
    (encoder / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(WeightsError, match="gpt2 is not an encoder that takes a prefix") as refused:
        load_encoder(encoder)
    one_sentence(refused.value)
    (encoder / "config.json").write_text(json.dumps({"model_type": "bart"}))
    with pytest.raises(WeightsError, match=r"bart is not an encoder .*\(nobody has tried it\)"):
        load_encoder(encoder)


# Damaged and hostile files.


def truncate(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


class Bomb:
    def __reduce__(self) -> Any:
        return (print, ("ran",))


def test_a_damaged_or_hostile_weights_file_of_an_encoder_is_one_sentence(
    encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truncate(encoder / "model.safetensors")
    with pytest.raises(WeightsError, match=r"model\.safetensors is damaged") as damaged:
        load_encoder(encoder)
    one_sentence(damaged.value)
    (encoder / "model.safetensors").unlink()
    pickled = encoder / "pytorch_model.bin"
    torch.save({"weight": torch.zeros(3)}, pickled)
    truncate(pickled)
    with pytest.raises(WeightsError) as damaged:
        load_encoder(encoder)
    one_sentence(damaged.value)
    bombs = [io.BytesIO(), io.BytesIO(pickle.dumps(Bomb()))]  # as torch writes it, and as Python does
    torch.save({"weight": Bomb()}, bombs[0])
    for bomb in bombs:
        pickled.write_bytes(bomb.getvalue())
        with pytest.raises(WeightsError, match="nothing else is ever unpickled") as refused:
            load_encoder(encoder)
        one_sentence(refused.value)
    assert "ran" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer/tokenizer.json"])
@pytest.mark.parametrize(
    "spoil", [truncate, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"[3]")]
)
def test_a_damaged_file_of_a_model_is_one_sentence(model: Path, name: str, spoil: Any) -> None:
    spoil(model / name)
    with pytest.raises(HmnetPipeError) as damaged:
        open_model(model, device="cpu")
    assert str(model) in one_sentence(damaged.value)


@pytest.mark.parametrize("length", [-1, 0, 2, 161, "8", None])
def test_a_length_that_no_text_has_is_refused_where_the_model_is_opened(model: Path, length: Any) -> None:
    edit(model / "config.json", max_length=length)
    with pytest.raises(WeightsError) as refused:
        load_system(model)
    assert str(model) in one_sentence(refused.value)
