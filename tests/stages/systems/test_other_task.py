"""What a model of one task has beside its head is what a model of the other task has."""

import pytest
import torch

from ... import rigs


@pytest.mark.parametrize("system", ["umt", "umgf", "hmnet"])
def test_all_but_the_heads_goes_over_from_entities_to_relations_and_back(system: str) -> None:
    entities, relations = (rigs.model_of(rigs.config_of(system, task)) for task in ("ner", "re"))
    with torch.no_grad():
        for parameter in relations.parameters():
            parameter.add_(1.0)

    def body(model: torch.nn.Module) -> dict[str, torch.Tensor]:
        return {name: value for name, value in model.state_dict().items() if not model.is_head(name)}

    assert body(entities).keys() == body(relations).keys()
    assert not {"classifier.weight", "classifier.bias"} & body(entities).keys()
    batch = rigs.batch_of()
    before, states = entities(batch), entities.states(batch)
    loaded = relations.load_state_dict(body(entities), strict=False)
    assert not loaded.unexpected_keys
    assert all(relations.is_head(name) for name in loaded.missing_keys)
    assert torch.equal(relations.states(batch), states)
    assert torch.equal(entities(batch), before)
