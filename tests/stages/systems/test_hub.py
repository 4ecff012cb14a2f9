"""Models are sent to the hub and fetched from there, by the hub's own client, to a hub on this machine."""

import json
import shutil
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from hmnet_pipe import HMNeT, Predictor
from hmnet_pipe.manifests.errors import InputError, WeightsError
from hmnet_pipe.pipeline.cli import main
from hmnet_pipe.stages.systems.build import new_system
from hmnet_pipe.stages.systems.hub import MODEL_FILES, files_to_push, model_folder, push_model
from hmnet_pipe.stages.text.subwords import Subwords
from huggingface_hub import ModelCard, constants

from ...hub import Hub, at_address, local_hub
from ...rigs import config_of

NAME = "ada/hmnet-twitter"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    """Return the folder of a model, with all that a training and its evaluations leave there."""
    folder = tmp_path_factory.mktemp("hub") / "seed-1"
    reader = Subwords.of_encoder(tiny_encoder, "ner")
    settings = {"weights": "/home/ada/weights/backbone.pth", "backbone": "resnet50"}
    config = replace(config_of("hmnet"), made_by={"extract": {"parameters": {}, "settings": settings}})
    torch.manual_seed(0)
    new_system(tiny_encoder, config, reader).save_pretrained(folder, reader)
    for name in ("README.md", "metrics.json", "temperature.json"):
        (folder / name).write_text("{}")
    for name in ("predictions.parquet", "evaluation-test.parquet", "history.parquet", "checkpoint.pt"):
        (folder / name).write_text("a tweet of somebody")
    return folder


@pytest.fixture
def hub() -> Iterator[Hub]:
    with local_hub() as found:
        yield found


def same_weights(one: HMNeT, other: HMNeT) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def test_a_model_that_was_sent_is_the_same_when_it_is_fetched(
    hub: Hub, trained: Path, tmp_path: Path
) -> None:
    url = push_model(trained, NAME, private=True, message="The first", token="hf_x")
    assert url.startswith(f"{hub.address}/{NAME}/commit/")
    assert hub.created[0].get("visibility") == "private" or hub.created[0].get("private") is True
    assert hub.commits[0]["summary"] == "The first"
    sent = hub.files[f"{NAME}@main"]
    assert sent["model.safetensors"] == (trained / "model.safetensors").read_bytes()
    assert not [content for content in sent.values() if b"tweet of somebody" in content]
    fetched = HMNeT.from_pretrained(NAME, cache_dir=tmp_path)
    assert same_weights(fetched, HMNeT.from_pretrained(trained))
    assert fetched.config.labels == HMNeT.from_pretrained(trained).config.labels


def test_no_place_on_this_machine_is_sent(hub: Hub, trained: Path) -> None:
    push_model(trained, NAME, token="hf_x")
    config = json.loads(hub.files[f"{NAME}@main"]["config.json"])
    settings = config["made_by"]["extract"]["settings"]
    assert settings == {"weights": "backbone.pth", "backbone": "resnet50"}
    config["made_by"] = json.loads((trained / "config.json").read_text())["made_by"]
    assert config == json.loads((trained / "config.json").read_text()), "and nothing else is changed"


def test_only_what_a_model_needs_is_fetched_and_from_the_revision_that_is_named(
    hub: Hub, trained: Path, tmp_path: Path
) -> None:
    push_model(trained, NAME, revision="v1", token="hf_x")
    hub.files[f"{NAME}@v1"]["pytorch_model.bin"] = b"another format"
    folder = model_folder(NAME, revision="v1", cache_dir=tmp_path)
    assert (folder / "model.safetensors").is_file()
    assert (folder / "tokenizer" / "tokenizer.json").is_file()
    assert not (folder / "pytorch_model.bin").exists()
    assert not [path for path in hub.asked if "pytorch_model.bin" in path]
    with pytest.raises(WeightsError, match="it has no such revision"):
        model_folder(NAME, revision="v2", cache_dir=tmp_path)
    with pytest.raises(WeightsError, match=r"holds no model of hmnet-pipe \(config.json"):
        model_folder(NAME, cache_dir=tmp_path)


def test_a_path_that_exists_is_a_path_and_nothing_is_asked(
    hub: Hub, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained, tmp_path / NAME)
    monkeypatch.chdir(tmp_path)
    assert model_folder(NAME) == Path(NAME)
    assert hub.asked == []


@pytest.mark.parametrize(
    ("refused", "words"),
    [
        (
            (401, "RepoNotFound"),
            f"no folder here, and the Hugging Face hub has no {NAME}, or keeps it from you",
        ),
        (
            (403, "GatedRepo"),
            f"it is gated: ask for access at http://127.0.0.1:[0-9]+/{NAME}, and set HF_TOKEN",
        ),
        ((401, ""), "HF_TOKEN"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence_with_a_remedy(
    hub: Hub, trained: Path, tmp_path: Path, refused: tuple[int, str], words: str
) -> None:
    hub.refused[NAME] = refused
    with pytest.raises(WeightsError, match=words):
        model_folder(NAME, cache_dir=tmp_path)
    with pytest.raises(WeightsError, match="HF_TOKEN") as raised:
        push_model(trained, NAME, token="hf_x")
    assert "\n" not in str(raised.value)


def test_without_a_network_the_remedy_needs_none(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    with at_address(address):
        with pytest.raises(
            WeightsError,
            match=f"{NAME} is no folder here, and .* cannot be reached; .*hf download {NAME} --local-dir",
        ):
            model_folder(NAME, cache_dir=tmp_path)
        with pytest.raises(WeightsError, match=r"nothing was sent .* cannot be reached"):
            push_model(trained, NAME, token="hf_x")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(WeightsError, match=r"HF_HUB_OFFLINE is set; .*hf download"):
            model_folder(NAME, cache_dir=tmp_path)


def test_a_mistyped_run_is_not_looked_for_on_the_hub(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs" / "demo" / "ner").mkdir(parents=True)
    (tmp_path / "runs" / "demo" / "ner" / "run.toml").touch()
    monkeypatch.chdir(tmp_path)
    for name in ("runs/nowhere", "runs/demo/nre", "./runs/x"):
        with pytest.raises(InputError, match=r"^there is no .*; runs\S* has (demo/)?ner \(.* user/name\)$"):
            model_folder(name)
    assert hub.asked == []


@pytest.mark.parametrize("name", ["hmnet", "a/b/c", "/ada/hmnet", "./ada/hmnet", "ada/", "ada/hm net", ""])
def test_what_is_neither_a_folder_nor_a_name_is_one_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if name:
        with pytest.raises(InputError, match="does not exist, and is no name on the Hugging Face hub"):
            model_folder(name)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file; give the folder"):
        model_folder(tmp_path / "file")


def test_what_holds_no_model_is_not_sent(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        files_to_push(tmp_path / "none")
    with pytest.raises(InputError, match=r"config\.json is missing"):
        files_to_push(tmp_path)
    (tmp_path / "run.toml").write_text("")
    with pytest.raises(InputError, match="is a run; give the folder of one of its models"):
        files_to_push(tmp_path)
    with pytest.raises(InputError, match="is no name on the Hugging Face hub; give it as user/name"):
        push_model(trained, "hmnet")


def test_a_predictor_is_fetched_as_it_is_asked_for(hub: Hub, trained: Path, tmp_path: Path) -> None:
    push_model(trained, NAME, revision="v1", token="hf_x")
    with pytest.raises(InputError, match="does not say how texts became words"):  # it was opened
        Predictor.from_pretrained(NAME, revision="v1", token="hf_y", cache_dir=tmp_path)
    assert (tmp_path / f"models--{NAME.replace('/', '--')}").is_dir()
    assert "Bearer hf_y" in hub.tokens
    with pytest.raises(WeightsError, match="it has no such revision"):
        Predictor.from_pretrained(NAME, revision="v2", cache_dir=tmp_path)


def test_the_card_that_is_sent_says_the_language_and_the_licence_where_they_are_given(
    trained: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "run" / "models" / "hmnet" / "seed-1"))
    (tmp_path / "run" / "run.toml").touch()
    text = "---\nlibrary_name: hmnet-pipe\ntags:\n- hmnet\n---\n\n# A model\n"
    (folder / "README.md").write_text(text)
    words = ["push", str(tmp_path / "run"), NAME, "--dry-run", "--output"]
    said = CliRunner().invoke(
        main, [*words, str(tmp_path / "up"), "--language", "en", "--language", "de", "--license", "mit"]
    )
    assert said.exit_code == 0, said.output
    card = ModelCard((tmp_path / "up" / "README.md").read_text())
    told = {name: value for name, value in vars(card.data).items() if value is not None}
    given = {"language": ["en", "de"], "license": "mit"}
    assert told == {"library_name": "hmnet-pipe", "tags": ["hmnet"], **given}
    assert card.text.strip() == "# A model"
    assert CliRunner().invoke(main, [*words, str(tmp_path / "plain")]).exit_code == 0
    assert (tmp_path / "plain" / "README.md").read_text() == text
    (folder / "README.md").unlink()
    with pytest.raises(InputError, match="cannot say a language or a licence"):
        files_to_push(folder, license="mit")


def test_a_dry_run_lists_and_writes_what_would_be_sent_and_sends_nothing(
    hub: Hub, trained: Path, tmp_path: Path
) -> None:
    def pushed(*more: str) -> str:
        answer = CliRunner().invoke(main, ["push", str(trained), NAME, *more])
        assert answer.exit_code == (2 if "Error" in answer.output else 0), answer.output
        return answer.output

    folder = tmp_path / "up"
    printed = pushed("--dry-run", "--output", str(folder))
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert written == set(files_to_push(trained))
    assert {name for name in written if "/" not in name} <= set(MODEL_FILES)
    for name in written:
        assert f"  {name}\n" in printed
    assert f"would go to {NAME}" in printed
    assert same_weights(HMNeT.from_pretrained(folder), HMNeT.from_pretrained(trained))
    assert "is no empty folder" in pushed("--dry-run", "--output", str(folder))
    assert "--output is for --dry-run" in pushed("--output", str(folder))
    listed = json.loads(pushed("--dry-run", "--predictions", "--json"))["files"]
    assert listed["predictions.parquet"] == (trained / "predictions.parquet").stat().st_size
    assert set(listed) == written | {"predictions.parquet"}
    assert hub.asked == []
    assert f"/{NAME}/commit/" in pushed("--predictions")
    assert set(hub.files[f"{NAME}@main"]) == set(listed)
