"""Backbones of transformers and timm, of small configurations with random weights, in folders."""

import json
import os
import pickle
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hmnet_pipe.manifests.errors import InputError, StageError, WeightsError
from hmnet_pipe.stages.extract.settings import ExtractSettings
from hmnet_pipe.stages.vision.backbones import backbone_info, other, outside
from hmnet_pipe.stages.vision.backbones.build import build_backbone
from hmnet_pipe.stages.vision.backbones.families import FAMILIES, REFUSED
from hmnet_pipe.stages.vision.weights import digest_of
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, SwinForImageClassification
from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING

from ...backbones import CONFIGS, TIMM_MODELS, save_backbone, save_timm


@pytest.fixture(autouse=True)
def forgetful(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that an earlier test measured is remembered."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(outside, "_KNOWN", {})


@pytest.fixture(scope="module")
def swin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_backbone(tmp_path_factory.mktemp("hf") / "swin", "swin")


@pytest.fixture(scope="module")
def convnext(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_timm(tmp_path_factory.mktemp("timm") / "convnext", "test_convnext")


def maps_of(name: str, weights: str = "default", size: int = 64) -> Sequence[Tensor]:
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        maps: Sequence[Tensor] = build_backbone(name, weights)(pixels)
    return maps


def equal(one: Sequence[Tensor], two: Sequence[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("kind", FAMILIES)
def test_levels_of_transformers_are_the_maps_of_its_stages_whatever_its_configuration_says(
    kind: str, tmp_path: Path
) -> None:
    folder = save_backbone(tmp_path / kind, kind)
    info = backbone_info(f"hf:{folder}")
    config = AutoConfig.from_pretrained(folder)
    layers = [stage for stage in config.stage_names if stage != "stem"]
    config.out_features = [layers[i] for i in (1, 3, 5, 7)] if len(layers) > 5 else layers
    network = MODEL_FOR_BACKBONE_MAPPING[type(config)].from_pretrained(folder, config=config).eval()
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        expected = network(pixels).feature_maps
    assert info.levels == tuple(level.shape[1] for level in expected)
    assert equal(maps_of(f"hf:{folder}"), expected)
    assert not equal(maps_of(f"hf:{folder}", "random"), expected)
    assert info.name == f"hf:{kind}"


@pytest.mark.parametrize("name", TIMM_MODELS)
def test_levels_of_timm_are_its_maps_from_a_quarter_on_with_channels_first(name: str, tmp_path: Path) -> None:
    folder = save_timm(tmp_path / name, name)
    info = backbone_info(f"timm:{folder}")
    whole: Any = timm.create_model(name, num_classes=5, **TIMM_MODELS[name]).eval()
    whole.load_state_dict(load_file(folder / "model.safetensors"))
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        expected = whole.forward_intermediates(pixels, output_fmt="NCHW", intermediates_only=True)
    if name == "test_vit2":
        expected = [expected[len(expected) * i // 4 - 1] for i in (1, 2, 3, 4)]
    expected = [level for level in expected if level.shape[-1] <= 16]
    assert info.levels == tuple(level.shape[1] for level in expected)
    for level, theirs in zip(maps_of(f"timm:{folder}"), expected, strict=True):
        torch.testing.assert_close(level, theirs, rtol=1e-5, atol=1e-5)


def test_pixels_are_prepared_as_the_models_own_files_say(swin: Path, convnext: Path) -> None:
    for name, kind in ((f"hf:{swin}", "hf:swin"), (f"timm:{convnext}", "timm:test_convnext")):
        info = backbone_info(name)
        assert info.name == kind  # where it lies is no part of what it is
        assert str(info.transform()) == (
            "PIL bicubic, plain resize to 64x64; scaled to 0..1; "
            "mean (0.5, 0.4, 0.3) and standard deviation (0.2, 0.3, 0.4)"
        )


def test_a_named_network_of_timm_is_described_by_timm() -> None:
    info = backbone_info("timm:test_resnet.r160_in1k", "random")
    known = timm.models.get_pretrained_cfg("test_resnet.r160_in1k")
    assert known is not None
    assert (info.name, info.size) == ("timm:test_resnet.r160_in1k", known.input_size[-1])
    assert (info.mean, info.std, info.interpolation) == (known.mean, known.std, known.interpolation)
    assert (info.levels, info.strides) == ((32, 48, 192, 96), (4, 8, 16, 32))
    with pytest.raises(
        InputError, match=r"timm's model 'test_resnett' is not one of .*did you mean test_resnet"
    ):
        backbone_info("timm:test_resnett", "random")
    with pytest.raises(InputError, match=r"has no such weights; it has test_resnet\.r160_in1k"):
        backbone_info("timm:test_resnet.imagined", "random")


def test_the_weights_may_be_a_file_or_another_folder(swin: Path, convnext: Path, tmp_path: Path) -> None:
    for prefix, folder in (("hf", swin), ("timm", convnext)):
        name, moved = f"{prefix}:{folder}", tmp_path / prefix
        shutil.copytree(folder, moved)
        state = load_file(folder / "model.safetensors")
        other_state = {key: value * 2 if value.dim() == 4 else value for key, value in state.items()}
        save_file(other_state, tmp_path / "other.safetensors")
        torch.save(other_state, tmp_path / "other.pth")
        assert equal(maps_of(name), maps_of(name, str(moved)))
        assert equal(maps_of(name), maps_of(f"{prefix}:{tmp_path}/gone", str(moved)))
        files = [str(tmp_path / file) for file in ("other.safetensors", "other.pth")]
        assert equal(*(maps_of(name, file) for file in files))
        assert not equal(maps_of(name), maps_of(name, files[0]))
        choices = ("default", "random", str(moved), files[0])
        digests = [digest_of("backbone", name, choice) for choice in choices]
        assert digests[0] == digests[2]
        assert len(set(digests)) == 3


def test_a_classifiers_weights_are_a_backbones_and_what_it_lacks_is_never_random(tmp_path: Path) -> None:
    """A classifier has no normalisation of each stage's map, which begins as none; all else must be there."""
    folder = save_backbone(tmp_path / "swin", "swin")
    config = AutoConfig.from_pretrained(folder)
    SwinForImageClassification(config).save_pretrained(tmp_path / "whole")
    save_file(load_file(tmp_path / "whole" / "model.safetensors"), folder / "model.safetensors")
    maps_of(f"hf:{folder}")
    state = load_file(folder / "model.safetensors")
    lost = next(name for name in state if name.endswith("query.weight"))
    del state[lost]
    save_file(state, folder / "model.safetensors")
    with pytest.raises(
        WeightsError, match=r"lacks the weights of 1 tensors \(.*attention\..*weight, \.\.\.\)"
    ):
        build_backbone(f"hf:{folder}", "default")


def test_timm_never_passes_over_weights_that_are_missing(convnext: Path, tmp_path: Path) -> None:
    """Not those of a convolution, nor those of a normalisation, which would begin as ones."""
    state = load_file(convnext / "model.safetensors")
    for lost in ("stages.1.blocks.0.conv_dw.weight", "stages.1.blocks.0.norm.weight"):
        save_file({key: value for key, value in state.items() if key != lost}, tmp_path / "less.safetensors")
        with pytest.raises(
            WeightsError, match=r"less\.safetensors lacks the weights of 1 tensors \(stages_1"
        ):
            build_backbone(f"timm:{convnext}", str(tmp_path / "less.safetensors"))


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch exploded",))


def test_nothing_is_unpickled(
    swin: Path, convnext: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for prefix, folder in (("hf", swin), ("timm", convnext)):
        own = shutil.copytree(folder, tmp_path / prefix)
        (own / "model.safetensors").unlink()
        torch.save({"weight": _Bomb()}, own / "pytorch_model.bin")
        with (tmp_path / "bomb.pth").open("wb") as file:
            pickle.dump({"weight": _Bomb()}, file)
        for name, weights in ((f"{prefix}:{own}", "default"), (f"{prefix}:{folder}", "bomb.pth")):
            with pytest.raises(WeightsError, match="unpickled"):
                build_backbone(name, weights)
        (own / "pytorch_model.bin").unlink()
        with pytest.raises(WeightsError, match=r"holds no model\.safetensors; random weights are never used"):
            build_backbone(f"{prefix}:{own}", "default")
    assert not Path("exploded").exists()


def test_code_that_comes_with_a_model_is_never_run(swin: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(swin, tmp_path / "own-code")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "own.Config", "AutoBackbone": "own.Backbone"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text("raise SystemExit('run')\n")
    assert equal(maps_of(f"hf:{folder}"), maps_of(f"hf:{swin}"))
    config["model_type"] = "own"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="its type is own, and it is not known to give maps"):
        build_backbone(f"hf:{folder}", "default")


@pytest.mark.parametrize("kind", REFUSED)
def test_a_type_that_is_refused_is_so_by_name_with_the_reason(kind: str, tmp_path: Path, swin: Path) -> None:
    folder = shutil.copytree(swin, tmp_path / kind)
    (folder / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(WeightsError) as error:
        backbone_info(f"hf:{folder}")
    assert f"its type is {kind}, and {REFUSED[kind]}; use one of" in str(error.value)


def test_a_network_of_one_size_refuses_views_of_another(tmp_path: Path) -> None:
    info = backbone_info(f"timm:{save_timm(tmp_path / 'swin', 'swin_tiny_patch4_window7_224')}")
    assert info.transform(64) == info.transform()
    with pytest.raises(InputError, match="takes views of 64 pixels alone, not of 224"):
        info.transform(224)


def test_a_forward_pass_is_remembered_until_the_model_is_another(
    swin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(swin, tmp_path / "swin")
    built: list[str] = []
    measure = other.build_other

    def counted(model: Any, *, random: bool = False) -> Any:
        built.append(model.name)
        return measure(model, random=random)

    monkeypatch.setattr(other, "build_other", counted)
    first = backbone_info(f"hf:{folder}")
    monkeypatch.setattr(outside, "_KNOWN", {})  # as in another process
    assert backbone_info(f"hf:{swin}") == first
    assert built == [f"hf:{folder}"]
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "embed_dim": 16}))
    assert backbone_info(f"hf:{folder}").levels == tuple(2 * channels for channels in first.levels)
    (tmp_path / "cache").rename(tmp_path / "lost")
    (tmp_path / "cache").write_text("no folder")
    monkeypatch.setattr(outside, "_KNOWN", {})
    assert backbone_info(f"hf:{swin}") == first


@pytest.mark.parametrize("text", ["", "{", "[]", '{"levels": 3}', '{"levels": [1], "strides": "x"}'])
def test_what_is_remembered_of_a_backbone_is_measured_again_where_it_is_spoilt(
    swin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    first = backbone_info(f"hf:{swin}")
    [remembered] = (tmp_path / "cache" / "hmnet-pipe" / "backbones").glob("*.json")
    remembered.write_text(text)
    monkeypatch.setattr(outside, "_KNOWN", {})  # as in another process
    assert backbone_info(f"hf:{swin}") == first


@pytest.mark.parametrize("kind", ["hf", "timm"])
@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"architecture": 3, "model_type": 3}'])
def test_a_spoilt_configuration_of_a_backbone_is_one_sentence(
    swin: Path, convnext: Path, tmp_path: Path, kind: str, text: str
) -> None:
    folder = shutil.copytree(swin if kind == "hf" else convnext, tmp_path / "model")
    (folder / "config.json").write_text(text)
    with pytest.raises((InputError, WeightsError), match=r"config\.json") as raised:
        build_backbone(f"{kind}:{folder}", "default")
    assert len(str(raised.value).splitlines()) == 1


def test_a_name_of_the_hub_is_found_in_its_cache_and_otherwise_answered_with_what_to_do(
    swin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("hf:somebody/swin", "timm:somebody/convnext", "timm:test_resnet.r160_in1k"):
        with pytest.raises(
            WeightsError, match="is not cached here and the Hugging Face hub cannot be reached"
        ):
            build_backbone(name, "default")
    repository = tmp_path / "hub" / "models--somebody--swin"
    shutil.copytree(swin, repository / "snapshots" / ("0" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    assert equal(maps_of("hf:somebody/swin"), maps_of(f"hf:{swin}"))
    assert digest_of("backbone", "hf:somebody/swin", "default") == digest_of(
        "backbone", f"hf:{swin}", "default"
    )


def test_a_prefix_without_a_name_and_a_folder_that_is_none_are_answered(tmp_path: Path) -> None:
    for name in ("hf:", "timm:"):
        with pytest.raises(InputError, match=f"--backbone {name}: give a name or a folder"):
            ExtractSettings(backbone=name)
    with pytest.raises(InputError, match=rf"--backbone: {tmp_path}/none is not a folder"):
        backbone_info(f"hf:{tmp_path}/none")
    with pytest.raises(InputError, match=r"holds no config\.json"):
        backbone_info(f"timm:{tmp_path}")


def in_two_files(source: Path, folder: Path) -> Path:
    """Copy a model's folder with its weights as two files and the list of what each holds."""
    shutil.copytree(source, folder)
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = [f"model-{i:05}-of-00002.safetensors" for i in (1, 2)]
    listed = {key: names[i % 2] for i, key in enumerate(sorted(state))}
    for name in names:
        part = {key: state[key] for key in state if listed[key] == name}
        save_file(part, folder / name, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": listed}))
    return folder


def test_weights_in_several_files_are_read_and_a_missing_one_is_named_before_anything_is_made(
    swin: Path, tmp_path: Path
) -> None:
    folder = in_two_files(swin, tmp_path / "parts")
    name = f"hf:{folder}"
    assert equal(maps_of(name), maps_of(f"hf:{swin}"))
    before = digest_of("backbone", name, "default")
    part, index = folder / "model-00002-of-00002.safetensors", folder / "model.safetensors.index.json"
    state = load_file(part)
    save_file({key: value + 1 for key, value in state.items()}, part, metadata={"format": "pt"})
    assert digest_of("backbone", name, "default") != before
    listed = json.loads(index.read_text())
    for spoilt, reason in (
        ("{", "index.json is damaged"),
        ("[]", "index.json is damaged"),
        ('{"weight_map": {"a": "../elsewhere.safetensors"}}', "elsewhere.safetensors is missing, which"),
    ):
        index.write_text(spoilt)
        with pytest.raises(WeightsError, match=reason):
            digest_of("backbone", name, "default")
    index.unlink()
    with pytest.raises(WeightsError, match=r"index\.json is missing, which says what model-00001"):
        digest_of("backbone", name, "default")
    index.write_text(json.dumps(listed))
    part.unlink()
    with pytest.raises(WeightsError, match=f"{part} is missing, which model.safetensors.index.json lists"):
        digest_of("backbone", name, "default")


@pytest.mark.parametrize(
    "spoilt",
    [
        {"image_mean": "x"},
        {"image_mean": [0.5]},
        {"image_std": [0.2, 0, 0.2]},
        {"size": "big"},
        {"size": -4},
        {"resample": 99},
        {"resample": "fine"},
    ],
)
def test_pixels_that_cannot_be_prepared_are_one_sentence_with_the_file(
    swin: Path, tmp_path: Path, spoilt: dict[str, Any]
) -> None:
    path = shutil.copytree(swin, tmp_path / "model") / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **spoilt}))
    with pytest.raises(WeightsError, match=f"^{path}: the .* of an image must not be .*own file there$"):
        backbone_info(f"hf:{tmp_path}/model")


@pytest.mark.parametrize("spoilt", [{"mean": "x"}, {"mean": None}, {"std": [0.0, 0.0, 0.0]}])
def test_timms_pixels_that_cannot_be_prepared_are_one_sentence_with_the_file(
    convnext: Path, tmp_path: Path, spoilt: dict[str, Any]
) -> None:
    path = shutil.copytree(convnext, tmp_path / "model") / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "pretrained_cfg": {**config["pretrained_cfg"], **spoilt}}))
    with pytest.raises(WeightsError, match=f"^{path}: the .* of an image must not be .*own file there$"):
        backbone_info(f"timm:{tmp_path}/model")


def test_the_nearest_pixel_and_one_mean_for_all_channels_are_taken_as_they_are_given(
    swin: Path, tmp_path: Path
) -> None:
    path = shutil.copytree(swin, tmp_path / "model") / "preprocessor_config.json"
    path.write_text(json.dumps({"resample": 0, "image_mean": 0.5, "image_std": 0.25, "size": 64}))
    info = backbone_info(f"hf:{tmp_path}/model")
    assert info.interpolation == "nearest"
    assert (info.mean, info.std) == ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


@pytest.mark.parametrize(
    "spoilt",
    [{"levels": ["a"]}, {"strides": [4]}, {"mean": []}, {"size": 0}, {"interpolation": 3}, {"fixed": "no"}],
)
def test_what_can_be_no_backbones_is_not_believed_of_a_remembered_one(
    swin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoilt: dict[str, Any]
) -> None:
    info = backbone_info(f"hf:{swin}")
    (kept,) = (tmp_path / "cache").rglob("*.json")
    kept.write_text(json.dumps({**json.loads(kept.read_text()), **spoilt}))
    monkeypatch.setattr(outside, "_KNOWN", {})
    assert backbone_info(f"hf:{swin}") == info


def test_a_network_with_other_maps_than_the_remembered_ones_names_the_file_to_delete(
    swin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone_info(f"hf:{swin}")
    (kept,) = (tmp_path / "cache").rglob("*.json")
    facts = json.loads(kept.read_text())
    kept.write_text(json.dumps({**facts, "levels": [1 + level for level in facts["levels"]]}))
    monkeypatch.setattr(outside, "_KNOWN", {})
    assert backbone_info(f"hf:{swin}").levels[0] == 1 + facts["levels"][0]
    with pytest.raises(StageError, match=f"^{kept} remembers other maps .*delete this file"):
        build_backbone(f"hf:{swin}", "default")


def test_the_families_are_those_that_the_tests_can_build() -> None:
    assert set(CONFIGS) == set(FAMILIES)
