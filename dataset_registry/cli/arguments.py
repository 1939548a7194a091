"""Arguments that several commands have."""

from typing import Annotated

import typer

from dataset_registry.cli import target

Address = Annotated[
    str,
    typer.Argument(
        help="A version: raw/flights (the head of main), raw/flights@v3, raw/flights@main~2 …",
        autocompletion=target.complete_address,
    ),
]
DatasetName = Annotated[
    str, typer.Argument(metavar="DATASET", help="The name of a dataset.", autocompletion=target.complete_dataset)
]
Message = Annotated[str | None, typer.Option("--message", "-m", help="The version message.")]
