"""Systems on encoders whose configurations are not BERT's."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hmnet_pipe.stages.systems.build import build_system
from hmnet_pipe.stages.systems.folder import load_system
from hmnet_pipe.stages.text.encoders.bert import encoder_from_config, load_tokenizer
from hmnet_pipe.stages.text.subwords import Subwords

from ... import rigs
from ...families import HEADS, LAYERS, config_of

KINDS = ("albert", "deberta-v2", "distilbert", "eurobert", "mobilebert", "modernbert", "xmod")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("system", ["hmnet", "umt", "adapcoatt-bert-crf"])
def test_a_system_learns_and_is_loaded_again(
    system: str, kind: str, tiny_encoder: Path, tmp_path: Path
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = encoder_from_config(config_of(kind))
        config = replace(rigs.config_of(system), encoder=encoder.config.to_dict())
        model = build_system(config, encoder)
        batch = rigs.batch_of()
        batch = replace(batch, views=batch.views.float())
        model.train().loss(batch).backward()
    unmoved = [name for name, value in model.named_parameters() if value.grad is None]
    # The adapters of other languages read no text.
    assert [name for name in unmoved if "adapter_modules.en_XX" not in name] == []
    with torch.inference_mode():
        scores = model.eval()(batch)
    model.save_pretrained(tmp_path, Subwords(load_tokenizer(tiny_encoder)))
    with torch.inference_mode():
        loaded = load_system(tmp_path).eval()
        torch.testing.assert_close(loaded(batch), scores, rtol=1e-5, atol=1e-6)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.state_dict().items())
    if system == "hmnet":
        explained = model.explain(batch)
        layers, samples, heads, *_ = explained.attention.shape
        assert (layers, samples, heads) == (LAYERS, len(rigs.LENGTHS), HEADS)
