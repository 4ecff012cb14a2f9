"""Every detector against a plain call of its library on the same image, and what is refused."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from hmnet_pipe.manifests.errors import InputError, WeightsError
from hmnet_pipe.stages.detect.settings import DetectSettings
from hmnet_pipe.stages.vision.detectors import DETECTORS
from hmnet_pipe.stages.vision.detectors.build import build_detector
from hmnet_pipe.stages.vision.detectors.detector import Object
from hmnet_pipe.stages.vision.detectors.families import FAMILIES, REFUSED
from hmnet_pipe.stages.vision.detectors.torchvision import classes_in
from hmnet_pipe.stages.vision.images import open_image
from hmnet_pipe.stages.vision.weights import digest_of
from PIL import Image, ImageOps
from safetensors.torch import load_file, save_file
from torchvision.transforms.functional import pil_to_tensor
from transformers import AutoImageProcessor, AutoModelForObjectDetection, ViTConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES,
    MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING_NAMES,
)

from ...detectors import NAMES, save_detector

PLAIN = [name for name, info in DETECTORS.items() if not info.fused]
THINGS = {0: "person", 2: "ball", 4: "tree", 5: "logo", 6: "trophy"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return a photo of an odd size, one in greyscale, and one that its EXIF block turns by a quarter."""
    folder = tmp_path_factory.mktemp("photos")
    noise = np.random.default_rng(5).integers(0, 255, (73, 131, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "odd.png")
    Image.fromarray(noise[:97, :40, 0]).save(folder / "grey.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(noise).save(folder / "turned.jpg", exif=turned)
    return sorted(folder.iterdir())


def plainly(path: Path) -> Image.Image:
    return ImageOps.exif_transpose(Image.open(path)).convert("RGB")


def expected_of(found: dict[str, torch.Tensor], names: dict[int, str], size: tuple[int, int]) -> list[Object]:
    """Return the three best, by Python alone."""
    width, height = size
    rows = []
    for (x0, y0, x1, y1), label, score in zip(
        *(found[name].tolist() for name in ("boxes", "labels", "scores")), strict=True
    ):
        box = (max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height)))
        if label in names and box[0] < box[2] and box[1] < box[3]:
            rows.append(Object(box, names[label], score))
    return sorted(rows, key=lambda row: -row.score)[:3]


def check(objects: list[Object], expected: list[Object]) -> None:
    assert len(objects) == len(expected) == 3
    for one, other in zip(objects, expected, strict=True):
        assert one.label == other.label
        assert one.score == pytest.approx(other.score, abs=1e-6)
        assert one.box == pytest.approx(other.box, abs=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_detector_of_transformers_finds_what_a_plain_call_of_it_finds(
    family: str, photos: list[Path], tmp_path: Path
) -> None:
    folder = save_detector(tmp_path / "detector", family)
    detector = build_detector(f"hf:{folder}", "default", 0.0)
    processor = AutoImageProcessor.from_pretrained(folder)
    network = AutoModelForObjectDetection.from_pretrained(folder).eval()
    for photo in photos:
        image = plainly(photo)
        with torch.no_grad():
            answer = network(**processor(images=[image], return_tensors="pt"))
        (found,) = processor.post_process_object_detection(
            answer, threshold=0.0, target_sizes=[(image.height, image.width)]
        )
        objects = detector.top_objects(open_image(photo), 3, 0.0)
        check(objects, expected_of(found, THINGS, image.size))
        least = objects[1].score
        assert detector.top_objects(open_image(photo), 3, least) == objects[:2]
        assert detector.top_objects(open_image(photo), 1, 0.0) == objects[:1]


def test_the_families_are_those_of_transformers_that_find_things_or_are_refused_with_a_reason() -> None:
    known = {*MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES, *MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING_NAMES}
    assert known <= {*FAMILIES, *REFUSED}
    assert not FAMILIES.keys() & REFUSED.keys()


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name == "ssd300_vgg16")) for name in PLAIN],
)
def test_a_detector_of_torchvision_finds_what_a_plain_call_of_it_finds(name: str, photos: list[Path]) -> None:
    detector = build_detector(name, "random", 0.0)
    plain = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=91)
    generator = torch.Generator().manual_seed(0)
    state = {
        key: value + 0.01 * torch.randn(value.shape, generator=generator) if "head." in key else value
        for key, value in plain.state_dict().items()
    }
    categories = torchvision.models.get_model_weights(name).DEFAULT.meta["categories"]
    names = {label: each for label, each in enumerate(categories) if each not in ("N/A", "__background__")}
    for network in (plain.eval(), detector.network):
        network.load_state_dict(state)
        network.score_thresh, network.topk_candidates = 0.0, 20
        if not name.startswith("ssd"):  # which have one size
            network.transform.min_size, network.transform.max_size = (64,), 128
    for photo in photos:
        image = plainly(photo)
        with torch.no_grad():
            (found,) = plain([pil_to_tensor(image) / 255])
        check(detector.top_objects(open_image(photo), 3, 0.0), expected_of(found, names, image.size))


@pytest.mark.parametrize("name", [name for name in DETECTORS if name != "demo_fasterrcnn"])
def test_the_number_of_classes_is_read_from_any_of_torchvisions_files(name: str) -> None:
    with torch.device("meta"):
        network = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=5)
    assert classes_in(name, network.state_dict()) == 5
    assert classes_in(name, {}) == 0


def test_a_file_with_other_classes_is_read_by_its_number_of_them(tmp_path: Path) -> None:
    name = "ssdlite320_mobilenet_v3_large"
    own = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=3)
    torch.save(own.state_dict(), tmp_path / "own.pth")
    objects = build_detector(name, str(tmp_path / "own.pth"), 0.0).top_objects(
        Image.new("RGB", (60, 40)), 50, 0.0
    )
    assert {each.label for each in objects} <= {"class-1", "class-2"}
    assert objects


@pytest.fixture(scope="module")
def detr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_detector(tmp_path_factory.mktemp("detr") / "detr", "detr")


@pytest.fixture
def own(detr: Path, tmp_path: Path) -> Path:
    """Return a copy of it that a test may spoil."""
    return Path(shutil.copytree(detr, tmp_path / "own"))


def refusal(folder: Path | str, choice: str = "default") -> str:
    with pytest.raises((WeightsError, InputError)) as error:
        build_detector(f"hf:{folder}", choice, 0.0)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_would_be_random_is_refused_with_the_tensor_that_lacks(own: Path) -> None:
    file = own / "model.safetensors"
    state = load_file(file)
    lost = "class_labels_classifier.weight"
    others = {name: value for name, value in state.items() if name != lost}
    save_file(others, file, metadata={"format": "pt"})
    assert f"lacks the weights of 1 tensors ({lost}, ...), which would be random" in refusal(own)
    save_file({**others, lost: state[lost][:3].contiguous()}, file, metadata={"format": "pt"})
    assert f"({lost}, ...)" in refusal(own)
    file.unlink()
    assert "holds no model.safetensors; random weights are never used in its place" in refusal(own)


def test_random_weights_come_only_where_they_are_asked_for(own: Path) -> None:
    (own / "model.safetensors").unlink()
    values = json.loads((own / "config.json").read_text())
    (own / "config.json").write_text(json.dumps({**values, "id2label": {str(i): "it" for i in range(7)}}))
    image = Image.new("RGB", (70, 50), (200, 30, 60))
    one, two = (build_detector(f"hf:{own}", "random", 0.0).top_objects(image, 3, 0.0) for _ in range(2))
    assert one == two != []
    assert digest_of("detector", f"hf:{own}", "random") == digest_of("detector", f"hf:{own}", "random")


def test_its_digest_follows_whatever_decides_its_boxes_and_not_where_it_lies(own: Path, detr: Path) -> None:
    name = f"hf:{own}"
    before = digest_of("detector", name, "default")
    assert digest_of("detector", f"hf:{detr}", "default") == before
    assert digest_of("detector", "hf:nowhere/at-all", str(own)) == before
    (own / "README.md").write_text("A detector.")
    assert digest_of("detector", name, "default") == before
    digests = {before, digest_of("detector", name, "random")}
    for file, key, value in (
        ("preprocessor_config.json", "do_normalize", False),
        ("config.json", "id2label", {"0": "cat"}),
    ):
        values = json.loads((own / file).read_text())
        (own / file).write_text(json.dumps({**values, key: value}))
        digests.add(digest_of("detector", name, "default"))
    assert len(digests) == 4


def test_a_model_that_finds_no_objects_is_refused_with_what_it_is(own: Path) -> None:
    ViTConfig().save_pretrained(own)
    assert "its type is vit, and it is not known to find objects; use one of the types detr," in refusal(own)
    (own / "config.json").write_text('{"model_type": "owlvit"}')
    assert "it needs the names of what to look for beside each image" in refusal(own)
    (own / "config.json").write_text("{}")
    assert "does not say its model_type" in refusal(own)
    (own / "config.json").write_text('{"model_type": "detr"')
    assert "config.json is damaged" in refusal(own)


def test_a_folder_without_its_processor_or_with_anothers_is_refused(own: Path) -> None:
    file = own / "preprocessor_config.json"
    file.write_text('{"image_processor_type": "ViTImageProcessor"}')
    assert "names a processor of images that knows no boxes (ViTImageProcessor" in refusal(own)
    file.write_text('{"image_processor_type"')
    assert f"{file} is damaged" in refusal(own)
    file.unlink()
    assert "holds no preprocessor_config.json" in refusal(own)


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("exploded"),))


def test_nothing_is_unpickled_and_no_code_of_a_folder_is_run(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(own.parent)
    (own / "model.safetensors").rename(own / "model.kept")
    with (own / "pytorch_model.bin").open("wb") as file:
        pickle.dump({"class_labels_classifier.weight": _Bomb()}, file)
    assert "own" in refusal(own)
    torch.save({"class_labels_classifier.weight": _Bomb()}, own / "pytorch_model.bin")
    assert "holds more than tensors, and nothing else is ever unpickled" in refusal(own)
    (own / "model.kept").rename(own / "model.safetensors")
    (own / "pytorch_model.bin").unlink()
    (own / "mine.py").write_text("from pathlib import Path\nPath('exploded').touch()\n")
    file_of = own / "preprocessor_config.json"
    values = {"image_processor_type": "Mine", "auto_map": {"AutoImageProcessor": "mine.Mine"}}
    file_of.write_text(json.dumps(values))
    assert "needs code of its own, which is never run here" in refusal(own)
    assert not Path("exploded").exists()


def test_what_is_not_here_is_one_sentence_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    said = refusal("facebook/detr-resnet-50")
    assert "run `hf download facebook/detr-resnet-50 --local-dir FOLDER`" in said
    assert said.endswith("give --detector hf:FOLDER")
    assert refusal("./nowhere") == (
        "--detector: ./nowhere is not a folder; give the one where the detector lies now, "
        "or a Hugging Face name"
    )
    assert "holds no config.json" in refusal(tmp_path)
    assert "is not a folder with a config.json; hf:facebook/detr-resnet-50 brings its own weights" in refusal(
        "facebook/detr-resnet-50", str(tmp_path)
    )


def test_bf16_is_refused_where_nothing_computes_it_well() -> None:
    for name in ("hf:facebook/detr-resnet-50", "retinanet_resnet50_fpn_v2"):
        assert DetectSettings(detector=name).precision == "auto"
        with pytest.raises(InputError, match=f"{name} computes in fp32; leave precision at auto"):
            DetectSettings(detector=name, precision="bf16")
    with pytest.raises(InputError, match="detector 'hf:' is not one of"):
        DetectSettings(detector="hf:")


def test_labels_that_name_no_thing_are_the_only_ones_that_are_dropped(detr: Path) -> None:
    detector: Any = build_detector(f"hf:{detr}", "default", 0.0)
    assert detector.names == {label: name for label, name in NAMES.items() if label in THINGS}
