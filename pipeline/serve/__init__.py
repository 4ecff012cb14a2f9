"""A page on this machine to try a model: `hmnet-pipe serve`, and what it answers to programs."""
