"""The command that uses a model: predict."""

import sys
from pathlib import Path

import click

from ...stages.text.words import WORD_RULES
from ..cluster.memory import release_freed_memory
from .completion import runs
from .completion import systems as offered_systems
from .console import lent_tools, print_json, print_reports, show
from .group import command
from .options import FiniteRange, cluster_options, json_option

__all__: list[str] = []

_INPUTS = ("auto", "jsonl", "txt", "csv", "tsv", "parquet", "conll")
_OUTPUTS = ("jsonl", "conll", "brat", "label-studio", "spacy", "csv")
_LONG = ("windows", "cut", "error")

_path = click.Path(path_type=Path)


@command(memory=release_freed_memory)
@click.argument("model", shell_complete=runs)
@click.argument("posts", required=False, metavar="[POSTS]", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--text", help="One text, instead of POSTS.")
@click.option("--image", type=_path, help="With --text: its image.")
@click.option("--images", type=_path, help="Folder of the images that POSTS name.")
@click.option("--output", type=_path, help="Folder for the predictions of POSTS [default: they are printed].")
@click.option("--relations", help="A model of relations, used on the mentions that MODEL finds.")
@click.option(
    "--system", default="hmnet", shell_complete=offered_systems, help="Where MODEL is a run: which system."
)
@click.option("--seed", type=int, default=1, help="Where MODEL is a run: which seed.")
@click.option("--finetuned", is_flag=True, help="Where MODEL is a run: the model that finetune made.")
@click.option(
    "--input-format",
    default="auto",
    type=click.Choice(_INPUTS),
    help="The format of POSTS; auto goes by the suffix.",
)
@click.option(
    "--format",
    "output_format",
    default="jsonl",
    type=click.Choice(_OUTPUTS),
    help="What is written: JSON lines, or made of them.",
)
@click.option("--text-column", default="text", help="For tables: the column of the texts.")
@click.option("--image-column", default="image", help="For tables: the column of the images' names.")
@click.option("--min-score", type=FiniteRange(0, 1), default=0.0, help="Leave out less probable mentions.")
@click.option("--recall", type=FiniteRange(0, 1), help="Also give mentions of this probability.")
@click.option("--marginals", is_flag=True, help="Also give the probability of each type for each word.")
@click.option(
    "--alternatives",
    type=click.IntRange(0),
    default=0,
    help="Also give the most probable other readings: this many of each mention and relation.",
)
@click.option("--max-pairs", type=click.IntRange(0), default=20, help="Pairs of mentions of a text at most.")
@click.option(
    "--types/--no-types", default=True, help="Hold relations to the types of arguments in their names."
)
@click.option(
    "--long",
    default="windows",
    type=click.Choice(_LONG),
    help="Texts that are longer than the model reads: in windows, cut as in training, or an error.",
)
@click.option(
    "--words",
    default="",
    type=click.Choice(("", *WORD_RULES)),
    show_default=False,
    help="How raw texts become words [default: as in the model's training].",
)
@click.option("--detector-weights", default="", help="The detector's weights, where they lie elsewhere now.")
@click.option(
    "--boxes",
    default="",
    metavar="FILE",
    help="What another detector found in the images, for a model that was trained on such boxes.",
)
@click.option("--backbone-weights", default="", help="The backbone's weights, where they lie elsewhere now.")
@click.option("--batch-size", type=click.IntRange(1, 2**16), default=64, help="Texts that go together.")
@click.option(
    "--chunk",
    type=click.IntRange(1, 2**20),
    default=1000,
    help="With --output: posts per task; the most that a kill can lose of each worker's work.",
)
@click.option("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
@click.option("--precision", default="auto", type=click.Choice(("auto", "fp32", "bf16")), help="Arithmetic.")
@cluster_options
@json_option
def predict(
    model: str,
    posts: Path | None,
    text: str | None,
    image: Path | None,
    images: Path | None,
    output: Path | None,
    relations: str | None,
    system: str,
    seed: int,
    finetuned: bool,
    input_format: str,
    output_format: str,
    text_column: str,
    image_column: str,
    min_score: float,
    recall: float | None,
    marginals: bool,
    alternatives: int,
    max_pairs: int,
    types: bool,
    long: str,
    words: str,
    detector_weights: str,
    boxes: str,
    backbone_weights: str,
    batch_size: int,
    chunk: int,
    device: str,
    precision: str,
    scheduler: str | None,
    workers: int | None,
    as_json: bool,
) -> None:
    """Find entities and relations in new posts.

    Reads MODEL (a model's folder, a run with --system and --seed, or a name on the hub) and POSTS (JSON
    lines, text, CSV, parquet or CoNLL; - is standard input) with the images that they name. Writes
    OUTPUT/predictions.jsonl and problems.parquet, what --format asks for beside them, and takes up what a
    kill left; without --output it prints.

    \b
    Example: hmnet-pipe predict runs/twitter2015 --text "Messi arrives in Paris" --image photo.jpg
             hmnet-pipe predict runs/twitter2015 posts.jsonl --images pictures --output found
    """
    from ...stages.predict.outputs import encoded
    from ...stages.predict.results import as_line
    from ..predict.command import model_meant, predict_file, shown, streamed
    from ..predict.part import Models
    from ..predict.predictor import PredictOptions
    from ..predict.stage import Source

    if (text is None) == (posts is None):
        raise click.UsageError("give either POSTS, a file or - for standard input, or --text.")
    if image is not None and text is None:
        raise click.UsageError("--image belongs to --text; POSTS name their images themselves.")
    if text is not None and (output is not None or images is not None):
        raise click.UsageError("--output and --images belong to POSTS; a text has --image, and is printed.")
    models = Models(
        model_meant(model, system, seed, finetuned=finetuned),
        None if relations is None else model_meant(relations, system, seed),
        words,
        detector_weights,
        backbone_weights,
        device,
        precision,
        PredictOptions(min_score, recall, max_pairs, types, long, marginals, alternatives, batch_size),
        boxes,
    )
    if text is not None:
        result = models.open()(text, image)
        if as_json:
            print_json(result.to_json())
        else:
            show(*shown(result))
        return
    assert posts is not None
    from_stdin = str(posts) == "-"
    source = Source(None if from_stdin else posts, images, input_format, text_column, image_column)
    if output is None:
        predictor = models.open()
        found = streamed(predictor, source, batch_size)
        if output_format == "jsonl":
            for result in found:
                show(as_line(result.to_json()).rstrip("\n"))
        else:
            numbered = enumerate(found, start=1)
            pieces = encoded(output_format, numbered, words=predictor.words, model=models.model)
            sys.stdout.buffer.writelines(pieces)
        return
    if from_stdin:
        raise click.UsageError("with --output POSTS must be a file: a run that is killed reads it again.")
    with lent_tools(scheduler, workers, quiet=as_json) as tools:
        report = predict_file(models, source, output, chunk, tools, output_format)
    if as_json:
        print_reports([report])
    else:
        show(*report.lines())
