"""Object detectors of transformers (DETR, RT-DETR, D-FINE, YOLOS, ...), each with its own image processor."""

from typing import Any

import torch
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModelForObjectDetection

from ....manifests.errors import WeightsError
from ...base.hub import check_complete, quiet
from ..hub import HubModel
from .detector import Detector, Object, best_objects, things, within
from .families import check_type

__all__ = ["TransformersDetector", "build_transformers"]


class TransformersDetector(Detector):
    """A detector as its publisher has it: its own processor makes its pixels, and boxes of its answer.

    Labels are what its configuration calls them; those of no thing ("N/A", "no object") are left out.
    """

    def __init__(self, network: Any, processor: Any) -> None:
        super().__init__(network)
        self.processor = processor
        self.names = things({int(label): str(name) for label, name in network.config.id2label.items()})

    def top_objects(self, image: Image.Image, count: int, min_score: float) -> list[Object]:
        given = self.processor(images=image, return_tensors="pt").to(self.device)
        size = torch.tensor([[image.height, image.width]], device=self.device)
        with torch.inference_mode():
            answer = self.network(**given)
            # Its own threshold leaves out what is equal to it.
            (found,) = self.processor.post_process_object_detection(answer, threshold=-1.0, target_sizes=size)
        if not all(bool(torch.isfinite(found[name]).all()) for name in ("boxes", "scores")):
            raise ValueError("its boxes or scores are not finite")
        return best_objects(within(found, image), self.names, count, min_score)


@quiet()
def build_transformers(name: str, choice: str) -> TransformersDetector:
    """Return the detector `name`, hf:NAME or hf:FOLDER, with the weights that `choice` stands for.

    Raises InputError or WeightsError where it is no detector that is taken, or where anything but weights
    that were asked to be random would be random. Nothing but tensors is unpickled, and no code of its own is
    run.
    """
    model = HubModel(name, choice, "detector")
    folder = model.folder()
    check_type(model)
    known = {"local_files_only": True, "trust_remote_code": False}
    with model.loading():
        config = AutoConfig.from_pretrained(folder, **known)
        processor = AutoImageProcessor.from_pretrained(folder, **known)
        if model.random:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                network = AutoModelForObjectDetection.from_config(config, trust_remote_code=False)
            loading: dict[str, Any] = {"missing_keys": (), "mismatched_keys": ()}
        else:
            network, loading = AutoModelForObjectDetection.from_pretrained(
                folder, config=config, output_loading_info=True, ignore_mismatched_sizes=True, **known
            )
    if not hasattr(processor, "post_process_object_detection"):
        raise WeightsError(
            f"{folder} names a processor of images that knows no boxes ({type(processor).__name__}); put the "
            "detector's own preprocessor_config.json there"
        )
    random = {*loading["missing_keys"], *(key for key, *_ in loading["mismatched_keys"])}
    check_complete(folder, sorted(random))
    return TransformersDetector(network.float(), processor)
