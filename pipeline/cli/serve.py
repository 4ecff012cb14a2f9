"""The command that shows a page to try a model: serve."""

from functools import partial

import click

from ..cluster.memory import release_freed_memory
from .completion import runs
from .completion import systems as offered_systems
from .console import show
from .group import command

__all__: list[str] = []


@command(memory=release_freed_memory)
@click.argument("model", shell_complete=runs)
@click.option("--relations", help="A model of relations, used on the mentions that MODEL finds.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, help="0: any that is free.")
@click.option("--host", default="127.0.0.1", help="Another address lets other machines use the model.")
@click.option(
    "--system", default="hmnet", shell_complete=offered_systems, help="Where MODEL is a run: which system."
)
@click.option("--seed", type=int, default=1, help="Where MODEL is a run: which seed.")
@click.option("--finetuned", is_flag=True, help="Where MODEL is a run: the model that finetune made.")
@click.option("--detector-weights", default="", help="The detector's weights, where they lie elsewhere now.")
@click.option("--backbone-weights", default="", help="The backbone's weights, where they lie elsewhere now.")
@click.option("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
@click.option("--precision", default="auto", type=click.Choice(("auto", "fp32", "bf16")), help="Arithmetic.")
def serve(
    model: str,
    relations: str | None,
    port: int,
    host: str,
    system: str,
    seed: int,
    finetuned: bool,
    detector_weights: str,
    backbone_weights: str,
    device: str,
    precision: str,
) -> None:
    """Show a page on this machine on which a model can be tried, and answer programs.

    Reads MODEL (a model's folder, a run with --system and --seed, or a name on the hub). Writes nothing.
    It needs `pip install 'hmnet-pipe[serve]'`, and nothing from the internet.

    \b
    Example: hmnet-pipe serve runs/twitter2015
             hmnet-pipe serve runs/twitter2015 --relations runs/mnre --port 8080
    """
    from ..serve.port import hold_port

    held = hold_port(host, port)  # before torch is imported
    from ..predict.command import model_meant
    from ..predict.part import Models
    from ..predict.predictor import PredictOptions
    from ..serve.command import serve_models

    models = Models(
        model_meant(model, system, seed, finetuned=finetuned),
        None if relations is None else model_meant(relations, system, seed),
        "",
        detector_weights,
        backbone_weights,
        device,
        precision,
        PredictOptions(),
    )
    serve_models(models, held, name=model, host=host, say=show, complain=partial(show, err=True))
