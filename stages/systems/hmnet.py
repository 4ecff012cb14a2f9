"""HMNeT and its text-only counterparts: text encoder, visual prefix and head in one module.

    model = HMNeT.from_pretrained(Path("runs/twitter2015/models/hmnet/seed-1"))

The forward pass reads like the paper: project and gate the pyramid (equations 1 to 5), make each layer's prefix (6 to 8), encode the
text with it (9), and score words with a CRF (10) or the pair with a softmax (11).
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ...manifests.errors import InputError, WeightsError
from ...manifests.files import atomic_path, write_text
from ..text.encoders.bert import encode, encoder_from_config, load_encoder, longest_text
from ..text.limits import MARKERS
from ..text.prefix import LayerPrefix
from .batch import Batch, ModelConfig
from .fusion import VisualPrefix
from .heads import best_tags, bio_crf, tag_loss
from .registry import VARIANTS

__all__ = ["Explanation", "HMNeT"]


@dataclass(frozen=True)
class Explanation:
    """What a model looked at, on the CPU. L text layers, B samples, V views that the system sees, c levels, H heads, n sub-words.

    gates: (L, B, V, c), equation 4's probabilities of the levels, or None in systems without a gate. attention: (L, B, H, n, V), the
    share of each sub-word's attention (equation 9) that goes to the cells of each view; the rest goes to text. Zero in layers that see
    text alone, and for absent views.
    """

    gates: Tensor | None
    attention: Tensor


class HMNeT(nn.Module):
    """A system of the paper: `config.system` is a variant of HMNeT or a text-only counterpart of the same code."""

    def __init__(self, config: ModelConfig, encoder: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        hf: Any = encoder.config
        self.dropout = nn.Dropout(hf.hidden_dropout_prob)
        if config.task == "ner":
            self.classifier = nn.Linear(hf.hidden_size, len(config.labels))
            self.crf = bio_crf(config.labels)
        else:
            width = 2 * hf.hidden_size if config.relation_head == "markers" else hf.hidden_size
            self.classifier = nn.Linear(width, len(config.labels))
        self.fusion: VisualPrefix | None = None
        if config.levels:
            # A generator of its own: the text side of every system starts from the same numbers and sees the same dropout.
            with torch.random.fork_rng(devices=[]):
                self.fusion = VisualPrefix(
                    levels=config.levels,
                    layers=hf.num_hidden_layers,
                    hidden=hf.hidden_size,
                    heads=hf.num_attention_heads,
                    variant=VARIANTS[config.system],
                )

    @classmethod
    def from_encoder(cls, folder: Path, config: ModelConfig) -> "HMNeT":
        """A new model on the pretrained encoder in `folder`; entity markers are added to its vocabulary for relations."""
        encoder: Any = load_encoder(folder)
        if config.max_length > (limit := longest_text(encoder)):
            raise InputError(
                f"max_length {config.max_length} is above the {limit} sub-words that the encoder {folder} has positions for"
            )
        if config.task == "re":
            encoder.resize_token_embeddings(encoder.config.vocab_size + len(MARKERS), mean_resizing=False)
        values = encoder.config.to_dict()
        values.pop("_name_or_path", None)  # a place on this machine, which is no part of a model
        return cls(replace(config, encoder=values), encoder)

    def prefix(self, batch: Batch) -> list[LayerPrefix | None] | None:
        """The visual prefix of every layer, or None where there is no view at all: plain text, exactly, and without the cost."""
        if (
            self.fusion is None
            or batch.views is None
            or batch.view_mask is None
            or not self.fusion.sees(batch.view_mask)
        ):
            return None
        prefixes: list[LayerPrefix | None] = self.fusion(batch.views, batch.view_mask)
        return prefixes

    def forward(self, batch: Batch) -> Tensor:
        """Scores: emissions (B, T, labels) for entities, logits (B, labels) for relations."""
        prefix = self.prefix(batch)
        states = encode(self.encoder, batch.input_ids, batch.attention_mask, prefix)
        rows = torch.arange(len(states), device=states.device)[:, None]
        picked = states[rows, batch.positions]  # shape: (B, T or 3, d)
        if self.config.task == "re":
            picked = picked[:, 1:].flatten(1) if self.config.relation_head == "markers" else picked[:, 0]
        scores: Tensor = self.classifier(self.dropout(picked)).to(self.classifier.weight.dtype)
        return scores

    def loss(self, batch: Batch) -> Tensor:
        """The mean negative log-likelihood of a batch's labels: equation 10 or 11, divided by B."""
        scores = self(batch)
        assert batch.labels is not None
        if self.config.task == "re":
            return nn.functional.cross_entropy(scores, batch.labels)
        return tag_loss(self.crf, scores, batch.labels, batch.position_mask)

    @torch.inference_mode()
    def predict(self, batch: Batch) -> list[list[str]]:
        """The best label sequence of each sample's kept words, or a list of one relation."""
        scores = self(batch)
        if self.config.task == "re":
            return [[self.config.labels[i]] for i in scores.argmax(dim=-1).tolist()]
        paths = best_tags(self.crf, scores, batch.position_mask)
        return [[self.config.labels[i] for i in path] for path in paths]

    @torch.inference_mode()
    def explain(self, batch: Batch) -> Explanation:
        """Gates and text-to-view attention of a batch, for figures. Raises InputError for a text-only system."""
        if self.fusion is None or batch.views is None or batch.view_mask is None:
            raise InputError(
                f"{self.config.system} reads no images: there is no gate and no attention to views to show"
            )
        prefix = self.prefix(batch)
        weights: dict[int, Tensor] = {}
        encode(self.encoder, batch.input_ids, batch.attention_mask, prefix, attention_to_prefix=weights)
        seen = batch.view_mask[:, self.fusion.first_view :]
        length, heads = batch.input_ids.shape[1], self.fusion.heads
        none = torch.zeros(len(seen), heads, length, seen.shape[1])
        # Cells of a view are neighbours. shape: (B, H, n, V*p*p) to (B, H, n, V)
        layers = [
            weights[i].reshape(*none.shape, -1).sum(-1).cpu() if i in weights else none
            for i in range(self.fusion.layers)
        ]
        gates = self.fusion.gates_of(batch.views)
        return Explanation(None if gates is None else torch.stack(gates).cpu(), torch.stack(layers))

    def text_state(self) -> dict[str, Tensor]:
        """The weights of everything but a backbone: what model.safetensors holds."""
        return self.state_dict()

    def save_pretrained(self, folder: Path, tokenizer: Any) -> None:
        """Write config.json, model.safetensors and tokenizer/; the folder is then all that `from_pretrained` needs."""
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer.save_pretrained(folder / "tokenizer")
        with atomic_path(folder / "model.safetensors") as temporary:
            save_file(
                {name: value.detach().cpu().contiguous() for name, value in self.text_state().items()},
                temporary,
            )
        write_text(folder / "config.json", json.dumps(asdict(self.config), indent=2, sort_keys=True) + "\n")

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "HMNeT":
        """The model that `save_pretrained` wrote, in evaluation mode. Raises WeightsError where the folder does not hold one."""
        folder = Path(folder)
        try:
            values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            config = ModelConfig(
                **{**values, "labels": tuple(values["labels"]), "levels": tuple(values["levels"])}
            )
            model = cls(config, encoder_from_config(config.encoder))
            model.load_state_dict(load_file(folder / "model.safetensors"))
        except FileNotFoundError as error:
            raise WeightsError(
                f"{folder} holds no trained model ({error.filename} is missing); run `hmnet-pipe train` first"
            ) from error
        except (ValueError, TypeError, KeyError, RuntimeError) as error:
            raise WeightsError(
                f"{folder} holds a model that this version cannot read ({str(error).splitlines()[0]})"
            ) from error
        return model.eval()
