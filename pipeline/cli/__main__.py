"""`python -m hmnet_pipe.pipeline.cli`: the commands without an installed script."""

from . import main

main()
