"""What several test files share."""

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# One thread a process: files of tests run side by side, and the numbers are those of the cluster's workers.
os.environ["OMP_NUM_THREADS"] = "1"  # read by torch when it is imported

from .running import Campaign, Demos

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_NO_DATA = "the real data is not in"
_NO_GPU = "torch finds no GPU here"

# What continuous integration says of skips. "": as on a user's machine. "fail": a skip is a failure, unless
# the test needs a GPU. "data": or the real data.
_SKIPS = os.environ.get("HMNET_PIPE_SKIPS", "")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("campaigns", "how long the tests that repeat a fault at random moments go on")
    group.addoption("--kills", type=int, default=3, help="how often each stage is killed (at least 3 times)")
    group.addoption("--flips", type=int, default=200, help="how many bits are flipped in each kind of file")
    group.addoption(
        "--seed", type=int, default=1, help="of the moments of the kills and the places of the bits"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for name in ("campaign", "data", "gpu"):
            if name in getattr(item, "fixturenames", ()):
                item.add_marker(name)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make a failure of a skip where HMNET_PIPE_SKIPS says so."""
    report = yield
    if _SKIPS and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not (_NO_GPU in reason or (_SKIPS == "data" and _NO_DATA in reason)):
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} was skipped, and nothing may be here. {reason}"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _SKIPS == "data":
        skipped = terminalreporter.getreports("skipped")
        count = sum(_NO_DATA in str(report.longrepr) for report in skipped)
        terminalreporter.write_line(f"{count} tests of the real data were skipped: its folder is not here")


@pytest.fixture(scope="session")
def campaign(pytestconfig: pytest.Config) -> Campaign:
    """Return how often a fault is repeated, and the seed of its moments: --kills, --flips and --seed."""
    return Campaign(*(pytestconfig.getoption(name) for name in ("kills", "flips", "seed")))


@pytest.fixture(scope="session")
def data() -> Path:
    """Return the folder of real data: $HMNET_PIPE_DATA, or shared/data beside the checkout.

    Its tests are skipped where it does not exist.
    """
    folder = Path(
        os.environ.get("HMNET_PIPE_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data"
    )
    if not folder.is_dir():
        pytest.skip(
            f"{_NO_DATA} {folder}; set HMNET_PIPE_DATA to the folder that holds twitter2015, mnre, ..."
        )
    return folder


@pytest.fixture(scope="session")
def gpu() -> None:
    """Skip the test where there is no GPU."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip(_NO_GPU)


@pytest.fixture(scope="module")
def chromium() -> Iterator["Browser"]:
    """Yield a headless Chromium. Its tests are skipped where none is installed; see tests/browser.py."""
    from .browser import NO_BROWSER, installed_chromium, running_chromium

    path = installed_chromium()
    if path is None:
        pytest.skip(NO_BROWSER)
    with running_chromium(path) as browser:
        yield browser


@pytest.fixture(scope="session")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Demos:
    """Return corpora and runs of the demonstration, each made once for all processes of these tests."""
    folder = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        folder = folder.parent  # of one worker alone; its parent is the session's
    (folder / "demos").mkdir(exist_ok=True)
    return Demos(folder / "demos")


def _save_encoder(folder: Path, kind: str) -> Path:
    """Return a folder as save_pretrained writes it: 4 layers of 2 heads, 32 features, a fast tokenizer.

    The weights are random.

    kind "bert": WordPiece in which every lower-case word can be spelled by letters. kind "roberta":
    byte-level BPE.
    """
    import string

    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

    words = [
        "ada",
        "alan",
        "grace",
        "lives",
        "works",
        "in",
        "london",
        "paris",
        "the",
        "red",
        "cat",
        "sat",
        "on",
        "near",
        "is",
        "and",
        "of",
    ]
    if kind == "bert":
        special = {
            "pad_token": "[PAD]",
            "unk_token": "[UNK]",
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "mask_token": "[MASK]",
        }
        letters = string.ascii_lowercase + string.digits
        names = [*special.values(), *words, *letters, *(f"##{letter}" for letter in letters), *",.'#@:/"]
        tokenizer = Tokenizer(
            models.WordPiece({name: number for number, name in enumerate(names)}, unk_token="[UNK]")
        )
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.post_processor = processors.BertProcessing(
            ("[SEP]", names.index("[SEP]")), ("[CLS]", names.index("[CLS]"))
        )
    else:
        special = {
            "cls_token": "<s>",
            "pad_token": "<pad>",
            "sep_token": "</s>",
            "unk_token": "<unk>",
            "mask_token": "<mask>",
        }
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=300, special_tokens=[*special.values()], initial_alphabet=alphabet, show_progress=False
        )
        tokenizer.train_from_iterator([" ".join(words)] * 20, trainer)
        tokenizer.post_processor = processors.RobertaProcessing(
            ("</s>", 2), ("<s>", 0), add_prefix_space=True
        )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    config = AutoConfig.for_model(
        kind,
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=160,
        pad_token_id=tokenizer.token_to_id(special["pad_token"]),
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModel.from_config(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a BERT of 4 layers with random weights, and its tokenizer."""
    return _save_encoder(tmp_path_factory.mktemp("encoders") / "bert", "bert")


@pytest.fixture(scope="session")
def tiny_roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a RoBERTa of 4 layers with random weights, and its tokenizer."""
    return _save_encoder(tmp_path_factory.mktemp("encoders") / "roberta", "roberta")
